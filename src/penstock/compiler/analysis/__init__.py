"""What rules mean together, on boxes and diagrams: findings about one rule set, differences between two.

What packets are:
    facts         combinations of field values that no frame has
    reality       … as boxes in front of all others
    shapes        stacks of headers that are tried to find a packet
    example       a real packet of a class, and its text
    guess         … that satisfies opaque predicates as well
One rule set, for `penstock check`:
    cover         do boxes cover a box together?
    sample        which boxes hold a point, for many points at once
    anomalies     is this rule shadowed, redundant, correlated; who reaches the default?
    removable     which rules could go together
    review        all of it about a filter, every packet shown built and tried
Two rule sets, for `penstock diff`:
    listing       both as one list of boxes
    compare       what differs between two diagrams
    change        every class of packets whose verdict changes
    merge         few readable classes from many
Words:
    expression    values of fields as an expression of the policy language
    spelling      … with opaque predicates
"""
