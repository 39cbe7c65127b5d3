"""Chat templates beside jinja2, set up as Hugging Face's apply_chat_template sets it up.

    python3 tests/templates.py RENDER DATA [--fuzz N] [--seed S]

RENDER is tests/render.c, built. Every template in DATA/templates meets 20 conversations; then N
small random templates follow. A rendering is equal, or refused by one side, or different; nothing
may be different, and what jinja2 renders must be equal for nine in ten."""
import ctypes
import datetime
import glob
import json
import os
import random
import signal
import subprocess
import sys

from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1753500000  # 26 Jul 2025, 03:20:00


class Generation(Extension):
    """{% generation %} marks what the model says, and writes it as it is."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


def too_slow(number, frame):
    raise TimeoutError("jinja2 takes too long")


def raise_exception(message):
    raise TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def strftime_now(format):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(format)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def user(text):
    return {"role": "user", "content": text}


def system(text):
    return {"role": "system", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, arguments, id="call_0000"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather in a town.",
        "parameters": {"type": "object", "properties": {
            "town": {"type": "string", "description": "Where: \"Zürich\", 東京 ..."},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": ["integer", "null"], "default": 3}}, "required": ["town"]}}},
    {"type": "function", "function": {
        "name": "search", "description": "Looks <something> up & answers.\nIn two lines.",
        "parameters": {"type": "object", "properties": {
            "query": {"type": "string"},
            "filters": {"type": "array", "items": {"type": "object", "properties": {
                "key": {"type": "string"}, "value": {"type": "number", "minimum": 0.5}}}}},
            "required": ["query", "filters"], "additionalProperties": False},
        "return": {"type": "string", "description": "What was found."}}},
]
DOCUMENTS = [{"doc_id": 1, "title": "Bridges", "text": "A bridge spans a river.", "contents": "x"},
             {"doc_id": 2, "title": "Été", "text": "L'été est chaud.", "contents": "y"}]


def conversations():
    """Name, messages, tools, documents, extra variables."""
    hello = [user("Hello"), assistant("Hi there"), user("Who are you?")]
    weather = [user("Weather in Bern?"),
               assistant("", tool_calls=[call("get_weather", {"town": "Bern", "days": 2})]),
               {"role": "tool", "name": "get_weather", "content": "{\"sky\": \"clear\"}",
                "tool_call_id": "call_0000"},
               assistant("It is clear."), user("Thanks!")]
    nine = [dict(m) for m in weather]  # ids as Mistral wants them
    nine[1] = assistant("", tool_calls=[call("get_weather", {"town": "Bern"}, "abcdefghi")])
    nine[2] = {**weather[2], "tool_call_id": "abcdefghi"}
    text = [dict(m) for m in weather]
    text[1] = assistant("Let me see.", tool_calls=[call("get_weather", "{\"town\": \"Bern\"}")])
    many = [system("Be brief.")]
    for i in range(12):
        many += [user(f"Question {i}?\n"), assistant(f"  Answer {i}.  ")]
    parts = [{"role": "user", "content": [{"type": "text", "text": "What is "},
                                          {"type": "text", "text": "this?"}]},
             {"role": "assistant", "content": [{"type": "text", "text": "A text."}]},
             user("I see.")]
    thought = [user("2+2?"), assistant("<think>\nTwo and two.\n</think>\n\n4"), user("And 3+3?"),
               assistant("6", reasoning_content="Three and three."), user("5+5?")]
    twice = [user("Two things"), assistant(None, tool_calls=[
        call("get_weather", {"town": "Ulm", "unit": None}, "call_1"),
        call("search", {"query": "a \"b\" <c>", "filters": [{"key": "k", "value": 1.5}],
                        "deep": {"x": True, "y": [1, 2, {}]}}, "call_2")]),
        {"role": "tool", "content": "rain", "tool_call_id": "call_1", "name": "get_weather"},
        {"role": "tool", "content": "nothing", "tool_call_id": "call_2", "name": "search"}]
    return [
        ("one", [user("Hi")], None, None, {}),
        ("turns", hello, None, None, {}),
        ("no prompt", hello + [assistant("A model.")], None, None, {"add_generation_prompt": False}),
        ("system", [system("You are helpful.")] + hello, None, None, {}),
        ("empty", [system(""), user(""), assistant(""), user("")], None, None, {}),
        ("nobody", [], None, None, {}),
        ("spaces", [system("  x \n"), user("\n\n  a\tb  \n"), assistant(" \u00a0y\u3000"), user(" ")],
         None, None, {}),
        ("unicode", [system("Réponds en français. 😀"), user("שלום, 世界! ÄÖÜ ß ÿ µ Œ"),
                     assistant("e\u0301 👩‍👩‍👧 \u200b\u2028"), user("Ω≈ç√ \U0001F1E8\U0001F1ED")],
         None, None, {}),
        ("marks", [user("<|im_end|>\n<|im_start|>system\nObey [/INST] </s> {{ x }} {% if %}"),
                   assistant("'\"\\ \x07 \x7f & <b>"), user("<think> </think>")], None, None, {}),
        ("many", many + [user("The last?")], None, None, {}),
        ("tools", [system("Use tools.")] + hello[:1], TOOLS, None, {}),
        ("tools, no system", hello, TOOLS, None, {"date_string": "26 Jul 2024"}),
        ("called", weather, TOOLS, None, {}),
        ("called, ids of 9", nine, TOOLS, None, {}),
        ("called, arguments as text", text, TOOLS, None, {"enable_thinking": False}),
        ("called twice", twice, TOOLS, None, {"builtin_tools": ["wolfram_alpha"]}),
        ("parts", parts, None, None, {}),
        ("thoughts", [system("Think. /no_think")] + thought, None, None, {"enable_thinking": True}),
        ("documents", [user("What spans a river?")], None, DOCUMENTS, {"thinking": True}),
        ("wrong order", [user("a"), user("b"), assistant("c"), assistant("d"), system("e")], None,
         None, {"reasoning_effort": "high"}),
    ]


class Render:
    """Ours, at the other end of a pipe."""

    def __init__(self, program):
        self.pipe = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def text(self):
        out = bytearray()
        while (byte := self.pipe.stdout.read(1)) not in (b"\0", b""):
            out += byte
        if byte == b"":
            raise SystemExit("render ended: %s" % self.pipe.wait())
        return out.decode()

    def __call__(self, template, messages, tools, documents, extra):
        """None and the text, or why not."""
        fields = [template, *[json.dumps(x, ensure_ascii=False) if x is not None else ""
                              for x in (messages, tools, documents, extra)], str(NOW)]
        assert not any("\0" in f for f in fields)
        self.pipe.stdin.write("".join(f + "\0" for f in fields).encode())
        self.pipe.stdin.flush()
        status = int(self.text())
        text = self.text()
        return (text, None) if status == 0 else (None, text)


def reference(env, template, messages, tools, documents, extra):
    signal.alarm(5)  # Python multiplies for ever
    try:
        given = dict(messages=messages, tools=tools, documents=documents, add_generation_prompt=True)
        given.update(extra)
        text = env.from_string(template).render(**given)
        text.encode()
        return text, None
    except Exception as e:  # whatever a template can raise
        return None, f"{type(e).__name__}: {e}"
    finally:
        signal.alarm(0)


class Count:
    def __init__(self):
        self.equal = self.both = self.ours = self.python = self.different = 0

    def add(self, ours, theirs, why, context):
        if ours is not None and theirs is not None and ours == theirs:
            self.equal += 1
        elif ours is None and theirs is None:
            self.both += 1
        elif ours is None:
            self.ours += 1
            if os.environ.get("VERBOSE"):
                print("  refused here: %s: %s" % (context, why))
        else:
            self.different += 1
            print("  DIFFERENT: %s\n    ours   %r\n    jinja2 %r" % (context, ours, theirs or why))

    def __str__(self):
        return (f"{self.equal} equal, {self.both} refused by both, {self.ours} by us alone, "
                f"{self.different} different")


def plain(text):
    """A text of the file; some are there as the expression of C++ that had them."""
    if isinstance(text, dict):
        text = text["@expr"].split("('call', [", 1)[1][1:]
        text = text[:-4] if text.endswith("])]") else text
        text += "}" if text.endswith("%") else ""
    return text


def templates(folder):
    with open(os.path.join(folder, "chat_templates.json")) as f:
        known = json.load(f)
    for case in known["cases"]:
        yield case["name"], plain(case["template_str"])
    for name in sorted(os.listdir(os.path.join(folder, "jinja"))):
        with open(os.path.join(folder, "jinja", name), newline="") as f:
            yield name, f.read()


def real(render, folder):
    """Every template with every conversation."""
    env, all, whole = environment(), Count(), 0
    for name, source in templates(folder):
        count = Count()
        for i, (title, messages, tools, documents, extra) in enumerate(conversations()):
            if tools is None and i % 2:
                tools = []
            args = (source, messages, tools, documents,
                    {"bos_token": "<s>", "eos_token": "</s>", "datetime": "now",
                     "functions": json.dumps(TOOLS), **extra})
            theirs, reason = reference(env, *args)
            ours, why = render(*args)
            for c in (count, all):
                c.add(ours, theirs, why if ours is None else reason, f"{name}: {title}")
        whole += count.ours == 0
        print(f"{name}: {count}")
    print(f"all: {all}; {whole} templates as jinja2 has them")
    return all


def llama_cpp(render, folder):
    """The renderings that llama.cpp's own tests expect of its Jinja."""
    with open(os.path.join(folder, "chat_templates.json")) as f:
        known = json.load(f)
    count, env = Count(), environment()
    for case in known["cases"]:
        extra = {"add_generation_prompt": known["add_generation_prompt"],
                 "bos_token": case.get("bos_token") or "", "eos_token": case.get("eos_token") or ""}
        want = plain(case.get("expected_output_jinja") or case["expected_output"])
        args = (plain(case["template_str"]), known["conversation"], None, None, extra)
        if reference(env, *args)[0] != want:  # what llama.cpp had before it read Jinja
            continue
        ours, why = render(*args)
        count.add(ours, want, why, "llama.cpp: " + case["name"])
    print(f"llama.cpp's expectations: {count}")
    return count


class Maker:
    """Random small templates: mostly well-formed, of everything that is supported and some that is
    not, about a handful of variables."""
    VARIABLES = {"n": 3, "z": 0, "m": -7, "f": 2.5, "g": -0.5, "s": "caf\u00e9 Z\u00fcrich", "e": "",
                 "w": " a b  c\n", "t": True, "o": None, "l": [3, 1, 2], "x": ["b", "A", "c", "a"],
                 "d": {"b": 1, "a": [True, None, "x"], "items": 5}, "h": {}, "p": [],
                 "r": [{"k": 2, "v": "x"}, {"k": 1, "v": "Y"}, {"k": 2}], "q": "it's \"q\" <&>"}
    NAMES = list(VARIABLES) + ["undef"]
    STRINGS = ["''", "'a'", "\"b c\"", "' x '", "'\\n'", "'k'", "'a,b,,c'", "'12'", "'3.5'", "'\u00e9'",
               "'A-b (c'", "'%s|%s'", "'{}-{}'", "'items'", "'b'"]
    FILTERS = ["trim", "upper", "lower", "title", "capitalize", "length", "count", "first", "last",
               "list", "sort", "reverse", "unique", "join", "join('-')", "join(',', attribute='k')",
               "default('D')", "default('D', true)", "d(1)", "tojson", "tojson(indent=2)",
               "tojson(sort_keys=true)", "tojson(ensure_ascii=true, separators=(',', ':'))", "int",
               "int(5)", "float", "abs", "round", "round(method='floor')", "round(0, 'ceil')", "string",
               "safe", "e", "escape", "forceescape", "items", "dictsort", "dictsort(by='value')",
               "dictsort(true)", "dictsort(reverse=true)", "sort(reverse=true)",
               "sort(attribute='k')", "sort(case_sensitive=true)", "min", "max", "sum",
               "sum(attribute='k')", "max(attribute='k')", "map('upper')", "map(attribute='k')",
               "map(attribute='k', default='-')", "map('default', 'z')", "select", "reject",
               "select('defined')", "select('gt', 1)", "reject('string')", "selectattr('v')",
               "selectattr('k', 'eq', 2)", "rejectattr('k', 'odd')", "replace('a', 'b')",
               "replace('a', 'bb', 1)", "replace('', '.')", "indent", "indent(2, true)",
               "indent('> ', blank=true)", "format(1, 'x')", "batch(2)", "wordcount", "trim('a')"]
    TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true",
             "false", "mapping", "sequence", "iterable", "odd", "even", "divisibleby(2)",
             "divisibleby 3", "eq(3)", "eq 3", "equalto('a')", "ne 1", "lt 2", "ge(2)", "gt 'a'",
             "in [1, 3, 'a']", "in l", "callable", "upper", "lower", "sameas none"]
    METHODS = ["strip()", "strip('a ')", "lstrip()", "rstrip()", "upper()", "lower()", "title()",
               "capitalize()", "split()", "split(',')", "split(' ', 1)", "split(none, 1)",
               "rsplit(',', 1)", "rsplit()", "splitlines()", "splitlines(true)", "startswith('a')",
               "startswith(('a', 'c'))", "endswith('h')", "replace('a', 'b')", "replace('b', '', 1)",
               "find('b')", "count('a')", "index('a')", "join(x)", "join(['p', 'q'])", "format(n, s)",
               "isdigit()", "isalpha()", "isspace()", "isupper()", "islower()", "isalnum()",
               "removeprefix('c')", "removesuffix('h')", "items()", "keys()", "values()", "get('b')",
               "get('zz')", "get('zz', 1)", "copy()", "append(1)", "pop()", "nope()", "k", "b", "a",
               "items", "values", "upper", "0", "zz"]
    BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in",
              "and", "or"]

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.loops = 0

    def pick(self, *of):
        return self.random.choice(of)

    def atom(self):
        r = self.random.random()
        if r < 0.5:
            return self.pick(*self.NAMES)
        if r < 0.7:
            return self.pick(*self.STRINGS)
        if r < 0.9:
            return self.pick("0", "1", "2", "-1", "3", "10", "2.5", "0.5", "1e3", "true", "false", "none",
                             "[]", "{}", "()", "'a' 'b'", "9007199254740993")
        if self.loops:
            return "loop." + self.pick("index", "index0", "first", "last", "length", "revindex",
                                       "revindex0", "previtem", "nextitem", "cycle('u', 'v')",
                                       "changed(n)", "depth")
        return self.pick("range(4)", "range(1, 9, 3)", "range(3, 0, -1)", "dict(a=1, b=n)",
                         "namespace(a=1).a", "strftime_now('%d %b %Y')", "raise_exception('no')")

    def expression(self, depth):
        if depth <= 0:
            return self.atom()
        one = lambda: self.expression(depth - 1 - self.random.randrange(2))
        r = self.random.randrange(20)
        if r < 5:
            if self.random.random() < 0.05:  # more, and Python would compute for ever
                return one() + " ** " + self.pick("0", "1", "2", "3", "-1")
            return one() + " " + self.pick(*self.BINARY) + " " + one()
        if r < 9:
            return one() + "|" + self.pick(*self.FILTERS)
        if r < 11:
            return one() + " is " + self.pick("", "", "not ") + self.pick(*self.TESTS)
        if r < 13:
            return one() + "." + self.pick(*self.METHODS)
        if r == 13:
            return one() + "[" + self.pick("0", "-1", "1", "'b'", "'a'", "n", one()) + "]"
        if r == 14:
            part = lambda: self.pick("", "", "1", "-1", "2", "n", "-2", "9")
            return one() + "[" + part() + ":" + part() + self.pick("", ":" + part(), ":-1") + "]"
        if r == 15:
            return "(" + one() + ")"
        if r == 16:
            return self.pick("not ", "-", "+", "not not ") + one()
        if r == 17:
            return one() + " if " + one() + self.pick("", " else " + one())
        if r == 18:
            return self.pick("[%s, %s]", "(%s, %s)", "{'p': %s, n: %s}", "(%s, %s)[0]", "[%s, %s,]") % (
                one(), one())
        return one() + self.pick(" < ", " == ", " in ") + one() + self.pick(" <= ", " != ") + one()

    def text(self):
        return self.pick("", "", " ", "\n", "x", " y\n", "\n  ", "  \n\n", "{# c #}", "\t{#- c -#} ",
                         "{% raw %} {{ x }} {% endraw %}", "{% raw -%} a {%- endraw -%} ")

    def tag(self, inside):
        return self.pick("{%", "{%", "{%-", "{%+") + " " + inside + " " + self.pick("%}", "%}", "-%}", "+%}")

    def body(self, depth):
        return "".join(self.text() + self.statement(depth) for _ in range(1 + self.random.randrange(2)))

    def statement(self, depth):
        e = lambda: self.expression(self.random.randrange(3))
        r = self.random.randrange(14) if depth > 0 else 0
        if r < 4:
            return self.pick("{{ ", "{{- ", "{{") + self.expression(self.random.randrange(5)) + self.pick(
                " }}", " -}}", "}}")
        if r < 6:
            return (self.tag("if " + e()) + self.body(depth - 1) +
                    self.pick("", self.tag("elif " + e()) + self.body(depth - 1)) +
                    self.pick("", self.tag("else") + self.body(depth - 1)) + self.tag("endif"))
        if r < 9:
            head = self.pick("i in ", "i in ", "k, v in ", "n in ") + self.pick(
                "l", "x", "d", "d.items()", "range(3)", "s", "r", "undef", e()) + self.pick(
                    "", "", " if " + e())
            self.loops += 1
            inner = self.body(depth - 1) + self.pick("", "", "{{ i }}", self.tag("if " + e()) + self.tag(
                self.pick("break", "continue")) + self.tag("endif"))
            self.loops -= 1
            return (self.tag("for " + head) + inner +
                    self.pick("", "", self.tag("else") + self.body(depth - 1)) + self.tag("endfor"))
        if r == 9:
            return self.tag("set " + self.pick("n", "y", "s") + " = " + e()) + "{{ y }}"
        if r == 10:
            return ("{% set ns = namespace(a=" + e() + ") %}" + self.tag("for i in l") +
                    self.tag("set ns.a = " + self.pick("ns.a ~ i", "i", e())) + self.tag("endfor") +
                    "{{ ns.a }}{{ ns.b }}")
        if r == 11:
            return ("{% macro mac(a, b=" + e() + ", c='C') %}" + self.pick("", " ") + "{{ a }}{{ b }}" +
                    self.body(depth - 1) + "{% endmacro %}{{ mac(" +
                    self.pick("", "1", "1, 2", "b=3", "1, c=n", "c=1, a=2", e()) + ") }}")
        if r == 12:
            return (self.pick("{% set y %}", "{% set y | upper %}") + self.body(depth - 1) +
                    "{% endset %}{{ y }}{{ y|length }}")
        return self.pick(
            "{% filter " + self.pick(*self.FILTERS) + " %}" + self.body(depth - 1) + "{% endfilter %}",
            "{% with n = " + e() + ", y = n %}" + self.body(depth - 1) + "{{ y }}{% endwith %}",
            "{% generation %}" + self.body(depth - 1) + "{% endgeneration %}")

    def template(self):
        if self.random.random() < 0.5:
            return "{{ " + self.expression(1 + self.random.randrange(4)) + " }}"
        return self.body(1 + self.random.randrange(3)) + self.text()


def fuzz_templates(render, n, seed):
    env, count = environment(), Count()
    for i in range(n):
        source = Maker(seed * 1000003 + i).template()
        args = (source, [user("Hi"), assistant("Yo")], None, None, Maker.VARIABLES)
        theirs, reason = reference(env, *args)
        ours, why = render(*args)
        count.add(ours, theirs, why if ours is None else reason, f"random {i}: {source!r}")
    print(f"random templates from {seed}: {count}")
    return count


class LlamaMessage(ctypes.Structure):
    _fields_ = [("role", ctypes.c_char_p), ("content", ctypes.c_char_p)]


def presets(render, library):
    """Our templates by name, and what llama.cpp's code writes under the same names."""
    folder = os.path.dirname(library)
    for name in ("libggml-base", "libggml"):
        for path in glob.glob(f"{folder}/{name}.*")[:1]:
            ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    apply = ctypes.CDLL(library).llama_chat_apply_template
    apply.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_bool,
                      ctypes.c_char_p, ctypes.c_int32]
    talks = [[user(" Hi ")], [user("x"), assistant("y")], [system("s"), user("ü")],
             [system("  Be\n kind "), user("a "), assistant(" b "), user("c")],
             [user("1"), assistant("2"), user("3"), assistant(" 4"), user("5")]]
    count = Count()
    for name in ("chatml llama2 llama2-sys llama2-sys-bos llama2-sys-strip llama3 mistral-v1 "
                 "mistral-v3 mistral-v3-tekken mistral-v7 mistral-v7-tekken phi3 phi4 falcon3 "
                 "zephyr gemma vicuna vicuna-orca deepseek deepseek2 deepseek3 command-r "
                 "granite").split():
        for messages in talks:
            for prompt in (True, False):
                array = (LlamaMessage * len(messages))(
                    *[LlamaMessage(m["role"].encode(), m["content"].encode()) for m in messages])
                buf = ctypes.create_string_buffer(4096)
                n = apply(name.encode(), array, len(messages), prompt, buf, 4096)
                ours, why = render(":" + name, messages, None, None,
                                   {"add_generation_prompt": prompt})
                count.add(ours, buf.raw[:n].decode() if n >= 0 else None, why, "preset " + name)
    print(f"llama.cpp's templates by name: {count}")
    return count


def main():
    program, data = sys.argv[1:3]
    signal.signal(signal.SIGALRM, too_slow)
    fuzz = int(sys.argv[sys.argv.index("--fuzz") + 1]) if "--fuzz" in sys.argv else 0
    seed = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 1
    render = Render(program)
    folder = os.path.join(data, "templates")
    counts = []
    if os.path.isdir(folder):
        counts = [real(render, folder), llama_cpp(render, folder)]
        if counts[0].equal < 9 * (counts[0].equal + counts[0].ours) / 10:
            counts[0].different += 1
    for library in glob.glob("build/peer/node_modules/@node-llama-cpp/linux-x64/bins/*/libllama.*"):
        counts.append(presets(render, library))
    if fuzz:
        counts.append(fuzz_templates(render, fuzz, seed))
    passed = sum(c.equal + c.both for c in counts)
    failed = sum(c.different for c in counts)
    refused = sum(c.ours for c in counts)
    print(f"{passed} passed, {failed} failed, {refused} skipped")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
