"""Sessions as pods of a Kubernetes cluster.

Each session is a `Session` resource that keeps its record for good, and while it runs a
Deployment of one pod, a Service and a NetworkPolicy that the record owns. The home is a
claim of the user's, which no session owns. Everything lies in one namespace.

One session, from the bottom up:

    kinds        which resources there are      options      what the settings say
    manifests    the resources of a session     views        what is known of one
    reading      what comes back, as views
    diagnosis    pods and events in words       judgement    what is true, what is to be done
    errors       what it says no with           pacing       how fast it is asked
    transport    how requests get there         api          what is asked
    watching     the cluster's picture, kept current
    records      the generation, and the rest   dial         ways to a session's port
    bringup      a whole start                  removal      the end, without a trace
    outcomes     how it came out                keeper       what changed by itself
    nodes        how much room there is         runtime      the `Runtime` of all that
"""
