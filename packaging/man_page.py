#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a manual page, in the language of man(7), of one of docs/*.md.

    man_page.py FILE.md VERSION DOC_DIRECTORY > culvert.1

The page begins with "# name(section): what it is". Understood is what those documents are written in:
paragraphs, headings, indented code, lists, tables, and **bold**, *italic*, `literal` and [links](…).
Tables become lists: their cells are sentences, and terminals are narrow. What else there may be comes
out as a paragraph, so that a document never breaks a build.

Links among the pages themselves become references; those to other documents name the file under
DOC_DIRECTORY, where they are installed."""

import os
import re
import sys
import time

PAGES = {"culvert.md": "culvert(1)", "culvert-serve.md": "culvert-serve(1)",
         "libculvert.md": "libculvert(3)"}


# ---- within a line


def escaped(text):
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")


def plain(text):
    """Running text: its hyphens are hyphens, except in front of a word."""
    text = text.replace("\\", "\\e")
    return re.sub(r"(?<![\w)])-(?=\w)|--", lambda m: m[0].replace("-", "\\-"), text)


class Inline:
    """Text with marks, as roff. `directory`: where documents are installed."""

    MARKS = re.compile(r"`(?P<literal>[^`]+)`|\*\*(?P<bold>.+?)\*\*|\*(?P<italic>[^*\s][^*]*)\*"
                       r"|!?\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)|\\(?P<escape>[|*_\\`\[\]])")

    def __init__(self, directory):
        self.directory = directory

    def _link(self, text, target):
        base = os.path.basename(target)
        if base in PAGES:
            return f"\\fB{escaped(PAGES[base][:-3])}\\fR{PAGES[base][-3:]}"
        if target.startswith(("http:", "https:")):
            return plain(text) if text == target else f"{plain(text)} <{escaped(target)}>"
        if target.startswith("#") or target.startswith("../"):
            return self(text)
        path = f"\\fI{escaped(os.path.join(self.directory, target))}\\fR"
        return path if text == target else f"{self(text)} ({path})"

    def __call__(self, text):
        out, at = [], 0
        for match in self.MARKS.finditer(text):
            out.append(plain(text[at:match.start()]))
            at = match.end()
            if match["literal"] is not None:
                out.append(f"\\fB{escaped(match['literal'])}\\fR")
            elif match["bold"] is not None:
                out.append(f"\\fB{self._within(match['bold'])}\\fR")
            elif match["italic"] is not None:
                out.append(f"\\fI{plain(match['italic'])}\\fR")
            elif match["target"] is not None:
                out.append(self._link(match["text"], match["target"]))
            else:
                out.append(plain(match["escape"]))
        out.append(plain(text[at:]))
        return "".join(out)

    def _within(self, text):
        """Bold text: marks in it would end it."""
        return re.sub(r"\\f[BIR]", "", self(text))


def guarded(line):
    """A line that roff does not take for a request."""
    return "\\&" + line if line.startswith((".", "'")) else line


# ---- blocks


def is_table(line):
    return line.startswith("|")


def cells_of(line):
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


class Page:
    def __init__(self, source, version, directory):
        with open(source, encoding="utf-8") as file:
            self.lines = file.read().splitlines()
        self.inline = Inline(directory)
        self.version = version
        self.when = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", os.path.getmtime(source))))
        self.at = 0
        self.out = []

    def put(self, line):
        if line == ".PP" and self.out[-1].startswith((".SH", ".SS")):
            return  # a heading begins a paragraph
        self.out.append(line)

    def text(self, text):
        self.put(guarded(self.inline(text)))

    def more(self):
        return self.at < len(self.lines)

    def line(self):
        return self.lines[self.at]

    def take_while(self, wanted):
        taken = []
        while self.more() and wanted(self.line()):
            taken.append(self.line())
            self.at += 1
        return taken

    # -- the beginning

    def begin(self):
        match = re.fullmatch(r"# ([\w-]+)\((\d)\)(?:: *(.*))?", self.line())
        if not match:
            sys.exit("the first line is not: # name(section): what it is")
        name, section, what = match.groups()
        self.at += 1
        self.put(f'.TH {name.upper()} {section} {time.strftime("%Y-%m-%d", self.when)} '
                 f'"culvert {self.version}"')
        self.put(".nh\n.ad l")
        self.put(".SH NAME")
        self.put(f"{escaped(name)} \\- {self.inline(what or name)}")
        self.skip_blank()
        if self.more() and self.line().startswith("**"):
            self.put(".SH SYNOPSIS")
            for line in self.take_while(str.strip):
                self.text(line)
        self.put(".SH DESCRIPTION")

    def skip_blank(self):
        self.take_while(lambda line: not line.strip())

    # -- what follows

    def verbatim(self, lines):
        for request in ".PP", ".RS 4", ".nf":
            self.put(request)
        for line in lines:
            self.put(guarded(escaped(line)))
        self.put(".fi")
        self.put(".RE")

    def code(self):
        lines = self.take_while(lambda line: line.startswith("    ") or not line.strip())
        while lines and not lines[-1].strip():
            lines.pop()
        self.verbatim([line[4:] for line in lines])

    def fenced(self):
        self.at += 1
        lines = self.take_while(lambda line: not line.startswith("```"))
        self.at += 1
        self.verbatim(lines)

    def heading(self):
        marks, text = self.line().split(None, 1)
        self.at += 1
        if len(marks) == 2:
            self.put(f".SH {self.inline(text.upper())}")
        else:
            self.put(f".SS {self.inline(text)}")
        self.skip_blank()

    def item(self):
        """An item and what belongs to it by indentation."""
        first = self.line()
        self.at += 1
        rest = self.take_while(lambda line: line.startswith("  ") and line.strip())
        mark, text = re.match(r"(-|\d+\.)\s+(.*)", first).groups()
        self.put(".IP \\(bu 2" if mark == "-" else f".IP {mark} 3")
        self.text(" ".join([text] + [line.strip() for line in rest]))

    def table(self):
        rows = [cells_of(line) for line in self.take_while(is_table)]
        head, rows = rows[0], rows[2:]
        for row in rows:
            self.put(".TP")
            self.text(row[0])
            self.text(row[1] if len(row) > 1 and row[1] else "\\&")
            for label, cell in zip(head[2:], row[2:]):
                if cell:
                    self.put(".br")
                    self.text(f"{label[:1].upper()}{label[1:]}: {cell}" if label else cell)

    def paragraph(self):
        self.put(".PP")
        ends = ("#", "|", "- ", "    ", "```")
        lines = [self.line()]
        self.at += 1
        lines += self.take_while(lambda line: line.strip() and not line.startswith(ends))
        for line in lines:
            self.text(line.strip())

    def blocks(self):
        while self.more():
            line = self.line()
            if not line.strip():
                self.at += 1
            elif line.startswith("    "):
                self.code()
            elif line.startswith("```"):
                self.fenced()
            elif line.startswith("#"):
                self.heading()
            elif re.match(r"(-|\d+\.)\s", line):
                self.item()
            elif is_table(line) and self.at + 2 < len(self.lines) and \
                    re.match(r"\|[-:| ]+$", self.lines[self.at + 1]):
                self.table()
            else:
                self.paragraph()

    def made(self):
        self.begin()
        self.blocks()
        return "\n".join(self.out) + "\n"


def main():
    source, version, directory = sys.argv[1:]
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(Page(source, version, directory).made())


if __name__ == "__main__":
    main()
