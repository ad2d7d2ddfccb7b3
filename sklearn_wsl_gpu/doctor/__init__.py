"""``sklearn-wsl-gpu doctor``: what works of all that offloading needs, what does not, and what to do about it.

`table` says what is looked at. Of each check a *collector* fetches the facts, from files and from programs that may
hang, and a pure *decision* makes a finding of them. `checks` runs them, each with a time-out of its own.
"""
