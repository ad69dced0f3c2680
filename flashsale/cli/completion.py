"""``flashsale completion``: the script that lets a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

_SCRIPTS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command
@click.argument("shell", type=click.Choice(list(_SCRIPTS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Write the script that lets SHELL complete commands, options and file names.

    It takes effect in the next shell. For zsh, ~/.zfunc has to be in fpath before compinit is
    called: in ~/.zshrc, `fpath=(~/.zfunc $fpath); autoload -U compinit; compinit`. bash needs
    version 4.4 or later and the package bash-completion; without that package, load the script
    in ~/.bashrc.

    \b
    Examples:
      flashsale completion bash > ~/.local/share/bash-completion/completions/flashsale
      flashsale completion zsh > ~/.zfunc/_flashsale
      flashsale completion fish > ~/.config/fish/completions/flashsale.fish
    """
    root = context.find_root().command
    click.echo(_SCRIPTS[shell](root, {}, "flashsale", "_FLASHSALE_COMPLETE").source())
