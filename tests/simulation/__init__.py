"""Fault simulation: the whole package under a scheduler that decides everything, and an environment that fails.

Real servers have threads, clocks, disks, networks and neighbours that do what they want. Here all of these are replaced
by parts that take every decision from one random number generator, so a seed is a run: which thread goes on, how long a
statement takes, which message is lost, who is killed when. The package itself is not changed and is not asked to help:
each simulated process loads its own copy of the modules, and what those import from the standard library to wait, to
tell the time or to start a thread is what `environment` gives them.

    scheduler    one thread at a time, chosen at each point where a thread could lose the processor; virtual time
    primitives   threads, locks, queues, events and conditions on top of it
    loops        asyncio event loops on top of it
    environment  the modules that a simulated process imports in place of the standard library's
    compiling    keeps what the standard library compiles while a process loads its modules
    images       a simulated process: its copy of the package's modules, its threads, connections and event loop
    sqlite       a driver whose statements take time, meet locks and fail
    broker       a Redis that loses, delays, doubles and reorders messages
    network      connections between clients and uvicorn's protocol, byte by byte; they break
    program      what a seed stands for: processes, streams, who does what, which faults
    clients      writers, producers and makers
    readers      readers, catching up and live
    forks        clients that fork streams and forks, and what must hold of those
    lifetimes    clients that let streams with a TTL end or live on
    programs     transactions and tails of Python programs
    jobs         writers of Python programs, which are started again
    history      what was asked, and what was answered
    checks       what must hold of a history
    world        one run
    mutations    faults put back on purpose, each of which the simulation has to find

`python -m tests.simulation --seed 17` runs a seed, with the same outcome each time.
"""
