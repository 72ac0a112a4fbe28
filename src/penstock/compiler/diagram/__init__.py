"""Rules as boxes, boxes as a decision diagram, and a diagram's answers as tables.

From rules to boxes:
    disjunction   a condition as a disjunction of terms
    terms         comparisons of one small field as the values that satisfy them
    rare          which fields get an axis, and which tests become predicates
    axis          one field, cut where some rule's range begins or ends
    boxes         what each rule asks, as ranges on axes
    convert       which rules share a diagram
From boxes to a diagram:
    order         which axes are asked first, which rules belong together
    build         levels of nodes; fingerprint: 128-bit names of sets of boxes
    node, reduce  the diagram, and its canonical form
    evaluate      linear search, the definition; walking a diagram
    verify        what a diagram promises, and what tables do, tried before use
    dump          text and Graphviz
From boxes to tables:
    groups, grids divide boxes until their diagrams are small
    layout        everything as arrays: lookups (value to class), cells (classes to a list), leaves (list to rule)
    blocks        step functions in blocks of fixed size
    tables        the values that say what is loaded from where
    interpret     the same in numpy, step for step
"""
