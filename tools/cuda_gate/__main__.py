import sys

from tools.cuda_gate.gate import main

if __name__ == "__main__":
    sys.exit(main())
