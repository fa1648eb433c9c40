"""The report as one page of HTML: it needs no network, fits a phone, and can be printed."""

from .page import html_page, save_html

__all__ = ["html_page", "save_html"]
