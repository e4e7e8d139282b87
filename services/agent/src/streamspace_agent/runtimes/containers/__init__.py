"""What the runtimes that run images know in common; pure, and about no platform.

images       what images are known to need, and where they are pulled from
quantities   `500m` and `2Gi`
"""
