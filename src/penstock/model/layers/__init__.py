"""The headers that a packet can be built from: one small function each, one table of them all.

`table.LAYERS` maps a layer's name to its `Layer`; `penstock.model.packet` puts them together.
"""
