"""Random JSON Schemas with instances, a line each as in MaskBench, for tests/schemas.sh. Valid is
what python3-jsonschema, the re module, and for numbers decimal say.

    schemas.py schemas|patterns|numbers SEED COUNT
"""
import json
import random
import re
import sys
from decimal import Decimal, getcontext

getcontext().prec = 1500
kind, R, count = sys.argv[1], random.Random(int(sys.argv[2])), int(sys.argv[3])

# --- keywords, one in the other ---
NAMES = ["a", "b", "xy", "x", "k9"]
PATTERNS = ["^x", "[0-9]$", "^.$", "y", "^(?!x).", "^(?=a|x)[a-y]{1,2}$"]
VALUES = [None, True, False, 0, 1, 2, 3.5, -7, 12, "", "a", "xy", "x9", [], [1], [1, 2], {},
          {"a": 1}, {"x": "a"}, ["a", None]]


def value(depth=2):
    r = R.random()
    if depth == 0 or r < 0.5:
        return R.choice(VALUES)
    if r < 0.7:
        return [value(depth - 1) for _ in range(R.randint(0, 3))]
    return {n: value(depth - 1) for n in R.sample(NAMES, R.randint(0, 3))}


def keyword(s, depth):
    def sub():
        return schema(depth - 1)

    some = {
        "type": lambda: R.choice(["object", "object", "array", "string", "number", "integer",
                                  ["object", "array"], ["string", "null"]]),
        "enum": lambda: [value() for _ in range(R.randint(1, 4))],
        "const": value,
        "items": sub, "contains": sub, "additionalProperties": sub, "propertyNames": sub,
        "if": sub, "then": sub, "else": sub, "not": sub,
        "allOf": lambda: [sub() for _ in range(R.randint(1, 3))],
        "anyOf": lambda: [sub() for _ in range(R.randint(1, 3))],
        "oneOf": lambda: [sub() for _ in range(R.randint(1, 3))],
        "prefixItems": lambda: [sub() for _ in range(R.randint(1, 2))],
        "properties": lambda: {n: sub() for n in R.sample(NAMES, R.randint(1, 3))},
        "patternProperties": lambda: {p: sub() for p in R.sample(PATTERNS, R.randint(1, 2))},
        "dependentSchemas": lambda: {R.choice(NAMES): sub()},
        "dependentRequired": lambda: {R.choice(NAMES): R.sample(NAMES, 1)},
        "required": lambda: R.sample(NAMES, R.randint(1, 2)),
        "minimum": lambda: R.choice([0, 1, 3, -7, 3.5, 0.5]),
        "exclusiveMaximum": lambda: R.choice([0, 1, 3, -7, 3.5, 12]),
        "multipleOf": lambda: R.choice([1, 2, 3, 7, 0.5, 3.5]),
        "pattern": lambda: R.choice(PATTERNS),
        "uniqueItems": lambda: True,
        "unevaluatedProperties": lambda: R.choice([False, schema(0)]),
        "unevaluatedItems": lambda: R.choice([False, schema(0)]),
    }
    for name in ("Length", "Items", "Properties"):
        some["min" + name] = some["max" + name] = lambda: R.randint(0, 3)
    name = R.choice(sorted(some))
    s[name] = some[name]()


def schema(depth):
    s = {}
    if depth == 0:
        return R.choice([True, True, False, {"type": "string"}, {"type": ["null", "boolean"]},
                         {"type": "integer"}, {"const": value(0)}, {"minimum": 2},
                         {"enum": R.sample(VALUES, 3)}, {"maxLength": 1}, {"pattern": "[0-9]$"}])
    for _ in range(R.choice([1, 1, 2, 2, 3, 4])):
        keyword(s, depth)
    return s


def schemas():
    import jsonschema
    s = {"allOf": [schema(2)], "$schema": "https://json-schema.org/draft/2020-12/schema"}
    judge = jsonschema.Draft202012Validator(s)
    return s, [(json.dumps(v), judge.is_valid(v)) for v in (value(3) for _ in range(20))]


# --- patterns; without nested repetitions, which re takes too long for ---
def atom(depth):
    r = R.random()
    if r < 0.6 or depth == 0:
        return R.choice(["a", "b", "1", ".", "[ab]", "[^a]", r"\d", r"\w", r"\D", r"[^\d]", "-"])
    if r < 0.7:
        return R.choice("^$")
    return R.choice(["(", "(?:"]) + alternatives(depth - 1, True) + ")"


def alternatives(depth, inner):
    def sequence():
        s = ""
        if not inner and R.random() < 0.3:
            s = R.choice(["(?=", "(?!"]) + alternatives(1, True) + ")"
        for _ in range(R.randint(1, 3)):
            a = atom(depth)
            s += a
            if a not in "^$" and not inner:
                s += R.choice(["", "", "*", "+", "?", "{2}", "{1,2}"])
        return s
    return "|".join(sequence() for _ in range(R.choice([1, 1, 2, 3])))


def patterns():
    p = alternatives(2, False)
    texts = ["".join(R.choice("aab1-c") for _ in range(R.randint(0, 6))) for _ in range(20)]
    return {"type": "string", "pattern": p}, [(json.dumps(t), bool(re.search(p, t))) for t in texts]


# --- numbers, in the forms that are written where something is asked of them ---
def digits(n):
    return "".join(R.choice("0123456789") for _ in range(n))


def number():
    first, sign, r = R.choice("123456789"), R.choice(["", "-"]), R.random()
    whole = R.choice(["0", first + digits(R.randint(0, 4))])
    if r < 0.6:
        return sign + whole + (R.choice([".", ".0000", ".0"]) + digits(2) if r < 0.3 else "")
    return (sign + first + R.choice(["", "." + digits(2)]) + R.choice(["e", "E+", "e-"]) +
            str(R.choice([16, 17, 20, 99, 300])))


def near(text):
    v = Decimal(text)
    v = R.choice([v, v, -v, v + 1, v * 2, v + Decimal("0.01"), v * 10])
    e = v.adjusted()
    if v and (e >= 16 or e <= -5) and R.random() < 0.6:
        return format(v.scaleb(-e), "f") + "e" + str(e)
    return format(v, "f") if v else "0"


def numbers():
    k = R.choice(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "const",
                  "multipleOf", "multipleOf"])
    b = number()
    if k == "multipleOf":
        b = R.choice(["0.1", "0.25", "3", "7", "0.07", "1", "30", "1e-5", "1000000", "0.75"])
    bound = Decimal(b)
    holds = {"minimum": lambda v: v >= bound, "maximum": lambda v: v <= bound,
             "exclusiveMinimum": lambda v: v > bound, "exclusiveMaximum": lambda v: v < bound,
             "const": lambda v: v == bound, "multipleOf": lambda v: v / bound % 1 == 0}[k]
    tests = []
    for t in [number() if R.random() < 0.5 else near(b) for _ in range(20)]:
        valid = holds(Decimal(t))
        if k != "multipleOf" or not valid or "e" not in t.lower():  # those are plain
            tests.append((t, valid))
    return '{"type": "number", "%s": %s}' % (k, b), tests


for i in range(count):
    s, tests = {"schemas": schemas, "patterns": patterns, "numbers": numbers}[kind]()
    print('{"file": "%s %d", "schema": %s, "tests": [%s]}' % (
        kind, i, s if kind == "numbers" else json.dumps(s),
        ", ".join('{"valid": %s, "data": %s}' % (json.dumps(v), t) for t, v in tests)))
