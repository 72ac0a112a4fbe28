"""Boxes as tables in global data, so that what a packet costs hardly grows with the rules.

tables        the values that say what is loaded from where
layout        a rule set as such values; the way in
groups        boxes divided until their diagrams are small
grids         … two address axes cut into coarse intervals
lookups       from a field's value to its class
cells         from classes to a list of boxes
leaves        from the list to the rule
bits          … by bit vectors, where lists are too long
blocks        step functions in blocks of fixed size
interpret     the same in numpy, step for step
trial         tables against linear search, before they may be attached
"""
