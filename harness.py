"""affectbench: causal claims about emotion inside language models, put to a fixed test.

Run `python harness.py --help`. The same command is installed as `affectbench`.
"""

from affectbench.__main__ import main

if __name__ == "__main__":
    main()
