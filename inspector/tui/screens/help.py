"""What `?` says: what each pane shows, what its numbers mean, and the keys."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from inspector.drawing.glossary import NUMBERS
from inspector.drawing.tokens import MODES
from inspector.tui.actions import MOVES, by_id, help_rows
from inspector.tui.widgets.entry import FilterLine

if TYPE_CHECKING:
    from textual.app import ComposeResult


@dataclass(frozen=True, kw_only=True)
class PaneHelp:
    """Help of one pane."""

    title: str
    paragraphs: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    """(keys, what they do)."""
    numbers: tuple[str, ...] = ()
    """Those that it shows, by their names in `glossary.NUMBERS`."""


_MODES = tuple(f"{mode.title}: {mode.meaning}" for mode in MODES)


def _keys(actions: str, *, general: bool = True) -> tuple[tuple[str, str], ...]:
    """Of a pane of the Stream: how to move, and the actions with these ids, those that matter most first."""
    more = "find prompt texts generate context-next context-back anatomy latent worst-tokens note notes experiments "
    more += "jobs suites switch retry theme quit"
    return help_rows(MOVES, map(by_id, f"{actions} {more if general else ''}".split()))


OF_TOKENS = ("sae-error", "linear", "nonlinear", "share", "token-fvu", "loss")

HELP: dict[str, PaneHelp] = {
    "tokens": PaneHelp(
        title="Tokens",
        paragraphs=(
            "Every token of a text, coloured by what the active SAE leaves unexplained of its activation x. "
            "The error is sae_error = x - x_hat. The part that an affine map of x predicts is the linear "
            "error, the rest is the nonlinear error.",
            "The map is fitted in the background on training contexts; the header says from how many tokens, "
            "and how well it predicts on held-out ones: R² pooled over dimensions, with a 95% interval from "
            "resampling contexts. The colours sharpen as it improves. In the header L0≈ is the nominal L0 of "
            "the active SAE, in brackets the one measured here.",
            "Dimmed tokens are excluded from fits and scales: special tokens and early positions. x counts them "
            "too: the header then shows the numbers with them and, in brackets, without. The line below the tokens "
            "is the legend. Colour modes:",
            *_MODES,
            "A colour means the same in every context: a share has one scale, centred on 50%; a norm has one per SAE "
            "and text, from ordinary held-out tokens. v makes the edges those of this context, and the legend says so.",
            "u shows marks that say the same: the height is the size, the left half is linear, the right nonlinear.",
            "Tokens in reverse are outliers: their activation is more than --outliers times (4) as long as the median. "
            "They are left out of fits, scales and axes like excluded ones, or they would decide them alone.",
            "n walks over the ten worst tokens of this text in the present mode, then goes on to the next "
            "context; o lets it meet outliers too. During a "
            "search it walks over the places found.",
        ),
        keys=_keys("mode mode-back relative l0-less l0-more worst worst-back outliers marks policy"),
        numbers=(
            "map",
            "r2",
            "fvu",
            "fvu-nonlinear",
            "l0",
            "sae-error",
            "linear",
            "nonlinear",
            "share",
            "token-fvu",
            "loss",
        ),
    ),
    "detail": PaneHelp(
        title="The token under the cursor",
        paragraphs=(
            "loss: nats the model needs for the next token. ‖x‖: L2 norm of the activation.",
            "One bar per enabled width. Its length is the norm of sae_error, on one scale for the whole text;"
            " › marks one that is longer. Its two parts show linear and nonlinear error by their share of "
            "squared norms: norms themselves do not add up, since ‖a + b‖ is at most ‖a‖ + ‖b‖ (triangle "
            "inequality). The numbers behind are the norms. cos is the cosine of the angle between the two parts: over "
            "many tokens they are orthogonal, on one they are not, so total² = linear² + nonlinear² + 2·cos·linear·"
            "nonlinear.",
            "Latents: those of the active SAE that are on at this token, strongest first, as index and activation.",
            "Next token: the model's own guesses, and what they become when the SAE's output is put in the "
            "activation's place, alone, with the linear error added back, with the nonlinear error added "
            "back. The model's first guess is bold "
            "wherever it stands.",
        ),
        keys=_keys("detail copy-token copy-context l0-less l0-more worst"),
        numbers=("loss", "x-norm", "sae-error", "linear", "nonlinear", "cosine", "l0", "activation"),
    ),
    "trace": PaneHelp(
        title="Norm against token, and pairs of widths",
        paragraphs=(
            "The measure of the present mode for each token around the cursor, one line per enabled width, "
            "told apart by colour and by line style (the paper's Figs. 5 and 12, live). If wider SAEs fail on"
            " the same tokens, the lines run in parallel. Excluded tokens are gaps. The axis is set by ordinary "
            "tokens; an outlier beyond it is drawn at its edge with its value. The window moves in "
            "steps; ▲ marks the cursor's token.",
            "On the right, R² of each pair of enabled widths: how well the narrower one's error norm predicts"
            " the wider one's, token by token, on held-out tokens (Eq. 13).",
        ),
        keys=_keys("zoom-in zoom-out enlarge mode l0-less l0-more detail"),
        numbers=OF_TOKENS,
    ),
    "load": PaneHelp(
        title="Loading",
        paragraphs=(
            "A session in the background loads the model, the SAEs and the text. It goes on when this view is"
            " closed, and the "
            "next view finds it ready.",
        ),
        keys=_keys("theme quit", general=False),
    ),
    "failed": PaneHelp(
        title="Loading failed",
        paragraphs=(
            "The session could not load what was asked for. Its log says more. Quitting returns its exit code.",
            "Below the reason stands what opens here without it: built-in models, and published ones whose weights and "
            "SAEs are in the cache. The digits open them, as a click does. What is lacking comes over from a machine "
            "with a network by the commands below them, which y copies.",
        ),
        keys=(
            ("1 to 9", "open one of these instead"),
            ("y", "copy the commands that fetch what is lacking"),
            *_keys("retry suites switch quit", general=False),
        ),
    ),
}


WIDTH, KEY_COLUMN = 88, 16


def _has(text: str, words: list[str]) -> bool:
    return all(word in text.casefold() for word in words)


class HelpScreen(ModalScreen[None]):
    """Any of the closing keys leads back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "close", show=False, id="help.close"),
        Binding("j", "scroll(1)", "down", show=False, id="help.down"),
        Binding("k", "scroll(-1)", "up", show=False, id="help.up"),
        Binding("slash", "filter", "find", show=False, id="help.find"),
    ]
    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background; }
    HelpScreen > VerticalScroll { width: 88; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; background:
    $surface; }
    """

    def __init__(self, pane: PaneHelp) -> None:
        super().__init__()
        self._help = pane

    def compose(self) -> ComposeResult:
        """One scrollable text."""
        with VerticalScroll():
            yield Static(self._text())
        yield FilterLine()

    def _text(self, typed: str = "") -> Text:
        """What has all the words that were typed, which stand out."""
        words = typed.casefold().split()
        room = max(
            min(WIDTH, self.app.size.width) - 5 - KEY_COLUMN, KEY_COLUMN
        )  # two spaces on both sides, and the bar
        text = Text(f"{self._help.title}\n\n", style="bold")
        for keys, title in (*self._help.keys, (": Ctrl+P", "every command by name")):
            for number, line in enumerate(wrap(title, room) if _has(f"{keys} {title}", words) else ()):
                text.append(f"{'' if number else keys:<{KEY_COLUMN}}", style="bold")
                text.append(f"{line}\n", style="not bold")
        for name, formula, misleading in map(NUMBERS.__getitem__, self._help.numbers):
            if _has(f"{name} {formula} {misleading}", words):
                text.append(f"\n{name}", style="bold")
                text.append(f"   {formula}\n", style="not bold")
                text.append(f"{misleading}\n", style="italic not bold")
        for paragraph in self._help.paragraphs:
            if _has(paragraph, words):
                text.append(f"\n{paragraph}\n", style="not bold")
        text.highlight_words(words, style="reverse", case_sensitive=False)
        return text.append("\n/ finds words in this help, : any command by name. Esc closes.", style="not bold")

    def on_mount(self) -> None:
        """Arrow keys scroll at once."""
        self.query_one(VerticalScroll).focus()

    def action_filter(self) -> None:
        """Type words."""
        self.query_one(FilterLine).open()

    def on_filter_line_filtered(self, message: FilterLine.Filtered) -> None:
        """Show what has them."""
        message.stop()
        self.query_one(Static).update(self._text(message.text))

    def on_filter_line_left(self, message: FilterLine.Left) -> None:
        """The keys are the help's again."""
        message.stop()
        self.query_one(VerticalScroll).focus()

    def action_scroll(self, lines: int) -> None:
        """As in the other panes."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)
