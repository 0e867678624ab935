"""Pages of HTML as trees of elements, and the pictures in them."""

import base64
import io
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "img", "input", "br", "link"}


class Node:
    def __init__(self, tag, attrs, parent):
        self.tag, self.attrs, self.parent, self.children = tag, dict(attrs), parent, []

    def all(self, tag=None, **attrs):
        """The elements below of this tag and these attributes, in order."""
        for child in self.children:
            if isinstance(child, Node):
                if tag in (None, child.tag) and all(
                    value in child.attrs.get(k, "").split() for k, value in attrs.items()
                ):
                    yield child
                yield from child.all(tag, **attrs)

    def one(self, tag, **attrs):
        return next(self.all(tag, **attrs))

    @property
    def text(self):
        return " ".join("".join(c if isinstance(c, str) else c.text + " " for c in self.children).split())


class Reader(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.root = self.at = Node("root", [], None)
        self.feed(page)
        assert self.at is self.root, f"{self.at.tag} is not closed"

    def handle_starttag(self, tag, attrs):
        node = Node(tag, attrs, self.at)
        assert len(node.attrs) == len(attrs), "an attribute comes twice"
        self.at.children.append(node)
        self.at = self.at if tag in VOID else node

    def handle_startendtag(self, tag, attrs):
        self.at.children.append(Node(tag, attrs, self.at))

    def handle_endtag(self, tag):
        assert tag == self.at.tag
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


def read(page):
    return Reader(page).root


def latents(root):
    return {int(article.attrs["data-number"]): article for article in root.all("article")}


def terms(node):
    return {
        div.one("dt").text: div.one("dd").text for div in node.all("div") if div.children[:1] and list(div.all("dt"))
    }


def number(text):
    return float(text.replace("\N{MINUS SIGN}", "-").replace(",", "").strip("%"))


def picture(node):
    kind, _, content = node.attrs["src"].partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))
