"""What the command lines of `aesampler` and of `lavida` share: how a command ends, and the options that all have.

Exit codes: 0 done, 1 the thing checked is bad, 2 the user's input is wrong, 3 the run failed, 130 stopped by hand. An
error is one line on stderr; its traceback is shown with --debug only.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from aesampler.errors import AesamplerError, StorageError

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, for programs.")
debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


def filled(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """For an option that names a place: "", as an unset variable of a shell gives it, is no name of the current one."""
    if value == "":
        raise click.BadParameter("it is empty; '.' is the current folder", context, parameter)
    return value


def together(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Options that several commands share, in order, as one decorator."""
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(options), command)


def run(program: str, group: click.Group, arguments: list[str]) -> int:
    """Run one command of `group`; its exit code."""
    debug = "--debug" in arguments
    try:
        code = group.main(args=arguments, prog_name=program, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        told = " ".join(error.format_message().split()).rstrip(".")
        context = error.ctx if isinstance(error, click.UsageError) else None
        click.echo(f"{program}: {told}{f'; see {context.command_path} --help' if context else ''}", err=True)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; what is finished is kept", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, say) has gone: there is no one to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (AesamplerError, OSError) as error:
        if debug:
            traceback.print_exc()
        known = error if isinstance(error, AesamplerError) else StorageError.of(error)
        click.echo(f"{program}: {known}", err=True)
        return known.exit_code
