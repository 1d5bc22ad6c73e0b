"""Other systems of the field, each behind a thin door: they are imported when they are measured, and only here.

Nothing of theirs is changed but the durability, which is set to that of all others. What they do by default otherwise stays.
"""
