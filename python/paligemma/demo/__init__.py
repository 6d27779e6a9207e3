# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""A page to look at a model with, and an OpenAI-compatible API beside it:  python -m paligemma.demo MODEL

__main__ has the command line, app the server, question what a request may ask, page.html the page. Needs starlette and
uvicorn (the extra "demo"). It is made for one person at one machine; `docs/EMBEDDING.md` says how to build a service."""
