"""Rules as boxes, and boxes as a decision diagram.

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
    verify        what a diagram promises; packets to try diagrams and tables with
    dump          text and Graphviz
"""
