"""`python -m streamspace_agent` is `streamspace-agent`."""

from streamspace_agent.main import main

main()
