"""Keys and values of maps by their types: read, shown as text, and written back."""
