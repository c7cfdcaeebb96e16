"""What `natadv init` leaves in a user's repository, and the settings of a run without one.

The files beside this one are templates; the suites are those that natadv itself runs.
"""
