"""Runs blocks of Python in one session: each comes as a line of JSON and is answered with one, of what went wrong.

A block that begins with ">>> " is a session with what it prints, as doctest has it.
"""

import doctest
import io
import json
import sys
import traceback

names = {"__name__": "docs"}
for line in sys.stdin:
    code, wrong = json.loads(line), io.StringIO()
    try:
        if code.startswith(">>> "):
            test = doctest.DocTestParser().get_doctest(code, {}, "docs", None, 0)
            test.globs = names
            doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=wrong.write, clear_globs=False)
        else:
            exec(compile(code, "docs", "exec"), names)
    except BaseException:
        traceback.print_exc(file=wrong)
    print(json.dumps(wrong.getvalue()), flush=True)
