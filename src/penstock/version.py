"""The version, in one place: the package's metadata is built from it too."""

VERSION = "0.1.0"
