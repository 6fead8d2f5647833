"""`python -m lit_pwm` is the command `lit-pwm`."""

from lit_pwm.cli.main import main

if __name__ == "__main__":
    main()
