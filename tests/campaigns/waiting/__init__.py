"""Random programs that wait, started, told, asked and killed at random, by the real engine and by a plain model.

`programs` says what a body may consist of and how hypothesis draws one, `acts` what that means in code, `model` what the
promises allow, `world` drives the engine process by process and shows the model all that happens, `machine` is the
hypothesis state machine, `mutants` break one rule each, and `campaign` counts.
"""
