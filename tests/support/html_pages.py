"""A reader of our pages."""

from html.parser import HTMLParser

VOID = {"meta", "br", "path", "rect", "input", "link"}


class Page(HTMLParser):
    """Reads a page: its tags must close in order; links, ids and texts are kept."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.text = [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.links += [found[name] for name in ("href", "src", "xlink:href") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
