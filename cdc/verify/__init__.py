"""Comparing a source with a target while the pipeline between them runs.

readable   what is asked of a database          compare   ranges that differ → keys in doubt
                                                settle    keys in doubt → what is lost
"""

__all__: list[str] = []
