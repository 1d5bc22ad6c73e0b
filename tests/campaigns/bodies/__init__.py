"""Random bodies, driven through crashes, unloads and cancels by the real engine in virtual time.

`programs` says what a body may consist of, `acts` and `steps` what that means in code, `cases` what chance decides, `world`
plays a case process by process, `checks`, `attempts` and `replays` say what must hold, `mutants` break one rule each, and
`campaign` counts.
"""
