"""`swiftlike serve`: a whole cluster on one machine, in the order in which to read it:

    layout      what lies where in a data directory, and how its files are written
    making      a new cluster: secret, devices, rings, a first user
    opening     the cluster that is there: whose it is, and whether it may be served
    running     its processes, from the first start to the last drain
    telling     what is printed when it is ready
    command     the command line

It runs the very processes of a cluster of many hosts, on the files that an operator would write by hand.
"""
