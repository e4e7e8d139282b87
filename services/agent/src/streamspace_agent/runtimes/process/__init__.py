"""Sessions as processes of this machine: Xvnc, a window manager, the application.

No isolation: every session runs as the agent's own user and can read its files. It is
what `make up` and a first look use; clusters with users who do not trust each other
use containers.

One session, from the bottom up:

    paths        where everything lies          fences       the generation, and the lock
    records      what is remembered of it       processes    start, watch and end processes
    programs     which programs there are       environment  what they see of the world
    appearance   how the desktop looks          x11          a few words with the X server
    desktop      the argument lists             launch       the start of the programs
    starts       a whole start, or undone       endings      the end, without a trace
    homes        what is kept                   custody      who watches over what runs
    runtime      the `Runtime` of all that
"""
