"""What the page of a helloworld service shows, beyond what all services have."""

from __future__ import annotations

from conpaas.core.pages import AT_REST, WORKING, Action, Facts, Field, Form, Page, Panel, Role, Table, Value

PAGE = Page(
    panels=(
        Panel(
            "Text",
            (
                Facts("get_string", (Value("string", "Text"),)),
                Form(
                    "Change the text",
                    Action(
                        "set_string",
                        "Save",
                        fields=(Field("string", "Text", required=True, maximum=1000, present="string", help="One line."),),
                        states=AT_REST,
                        done="The text is changed.",
                    ),
                    method="get_string",
                ),
            ),
        ),
        Panel(
            "Answers",
            (
                Table(
                    "get_helloworld",
                    "replies",
                    (Value("node", "Node", "code"), Value("message", "Answer"), Value("error", "Problem")),
                    states=WORKING,
                    empty="No node has answered.",
                ),
            ),
            help="What every node answers when it is asked now.",
        ),
    ),
    roles=(Role("node", "Nodes", minimum=1),),
    next_step="Start the service: its first node then answers the text.",
)
