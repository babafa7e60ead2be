"""The theme: colours and fonts."""

from typing import Any

import gradio as gr

from memlm.app.picture import asset

_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "DejaVu Sans Mono", "monospace"]
_INK = gr.themes.Color(
    *(
        "#f6f7f9",
        "#eceef1",
        "#dfe2e7",
        "#c8cdd5",
        "#9aa2ae",
        "#6f7885",
        "#525b68",
        "#3b434f",
        "#252b34",
        "#171b21",
        "#0f1216",
    ),
    name="ink",
)
_BLUE = gr.themes.Color(
    *(
        "#eef5fb",
        "#d8e8f6",
        "#b3d2ec",
        "#86b6df",
        "#5596cd",
        "#2677b8",
        "#0b5fa5",
        "#0a4f89",
        "#0b416f",
        "#0c365b",
        "#08233d",
    ),
    name="blue",
)


def look() -> dict[str, Any]:
    """The theme and the style sheet, as `launch` takes them; of fonts, only those that the system has."""
    theme = gr.themes.Base(
        primary_hue=_BLUE, secondary_hue=_BLUE, neutral_hue=_INK, font=_SANS, font_mono=_MONO, radius_size="sm"
    ).set(
        body_background_fill="#fbfbfa",
        body_background_fill_dark="#0f1216",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171b21",
        block_border_width="1px",
        block_shadow="none",
        block_label_text_weight="600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="#ffffff",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
    )
    return {"theme": theme, "css": asset("style.css")}
