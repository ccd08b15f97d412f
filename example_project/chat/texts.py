"""What the generator writes: texts that answer a message, chosen by its words. The same message gets the same text."""

RELOAD = """\
This answer survives it, because the page has no part in it. It runs **on the server**, and each piece is committed \
to a stream in the database before anybody sees it. Your page only reads that stream.

So try it while I write. Reload the page: the beginning comes back from the stream, and the rest follows as it is \
written. Open a second tab: both show the same words. Close them all, have a coffee, and open the link again: the \
answer has been completed without you.

Here is what happens in detail:

- **The message** that you sent and the start of this answer were stored in one transaction. Either both exist, or \
neither does.
- **The writer** collects the tokens of the model and commits them 20 times a second, each exactly once.
- **The page** asks for everything after the last offset that it has seen. After a reload it has seen nothing, so it \
begins at the start.
- **Other devices** do the same with the same link. A hundred readers cost little more than one.

None of this needs a socket server, a broker, or a job that polls. It is plain HTTP, on the database that your \
Django project has anyway.

What about a crash? Then no page can help, and the database can. Every answer has a lease, and the process that \
writes it keeps renewing that. If the process is killed, the lease ends after a few seconds. Another process sees \
it, reads what is written already, and goes on after the last word. You see a short pause, and no word twice.

That is all there is to it. Whatever you do to this page, it was never the place where the answer lives."""

RESUME = """\
Every position in a stream has a name, its **offset**. The server sends the next offset with each piece of data, and \
a reader keeps it. To resume is to ask for what comes after it:

1. The page asks for the stream from the start, with `offset=-1`. It gets all messages that exist, and the offset \
behind the last one.
2. It asks again from there with `live=sse`. The connection stays open, and new messages arrive as they are committed.
3. The network drops, or the laptop sleeps. The page still has its last offset.
4. It asks again from exactly that offset. No message is missing, and none comes twice.

Data at an offset never changes, which makes all of this simple. The server keeps no session for a reader and has \
nothing to forget. A proxy may cache old parts. A reader may come back after a minute or after a year.

You can watch it: open *On the wire* beside this chat. It follows the same stream with plain requests, and shows \
each offset as it arrives."""

LIST = """\
A stream is an ordered log at a URL. These are things that people keep in one:

- **Answers of language models**, which take a minute and must survive a reload, as this one does
- **Progress of jobs**: an import, a build, a report, followed live and readable afterwards
- **Live pages**: boards, dashboards and feeds that are fed by `post_save`
- **Collaboration**: every client replays the same log and arrives at the same document
- **Events between services**: a consumer handles each message once, in order, together with its effects
- **Audit logs**, which only ever grow

What they share: data arrives piece by piece, several readers want it, and losing a piece is not an option. If you \
only need the newest value, a row in a table is enough."""

CODE = """\
This is a complete source of answers. It is called on the server, detached from the request:

```python
from openai import AsyncOpenAI

from django_durable_streams.contrib.ai.sources.openai import chat_completions, messages


async def reply(context, model):
    async with AsyncOpenAI() as client:
        request = client.chat.completions.create(
            model=model, messages=messages(context.messages), stream=True
        )
        async for event in chat_completions(request):
            yield event
```

A chat is a class that names the source, and its URLs:

```python
class Chats(DurableTransportChat):
    def answer(self, request):
        return Answer("shop.answers.reply", {"model": "some-model"})


urlpatterns = [*Chats.urls("api/chat")]
```

The page follows the stream with a module of 3 KB:

```js
follow("/v1/stream/chats/42", {
  onmessage: (event) => show(event),
});
```

That is the whole of this chat, apart from its looks. You find it in `example_project/chat`."""

CRASH = """\
Try it: kill the server while I write this, with `kill -9`, and start it again with `make run`. Keep this page open, \
or do not.

The process that writes an answer holds a **lease** on it, here of three seconds, and renews that all the time. A \
killed process renews nothing. When the lease has ended, another process may take the answer, and the first to look \
is the server that you have started again.

It calls the same function as before, and tells it what is written already. This function writes from a text, so it \
goes on after the last stored word. A model cannot do that in general, so such an answer ends as *failed*, with a \
button to ask again. The project decides which of the two it wants, in one argument.

What if the first process was not dead, but only slow, and writes on? Then two would write the same answer. The \
stream does not let that happen. Each taker begins a new **epoch**, and the database refuses what comes from an \
earlier one. So no word appears twice, whatever the processes believe.

And the page? It notices that nothing arrives, says so, and asks from its last offset until the server is there. It \
has nothing to repair, because it never had anything to lose."""

BRANCH = """\
Choose *Edit* at one of your messages. The new version begins a **branch**: another chat with a link of its own, \
which shares everything before that message with this one.

A branch is a fork of a stream. The server copies no data for it. It notes where the fork begins, and reads the \
earlier part from here. So a branch of a long chat costs as little as one of a short chat, and both go their own \
ways from then on.

This chat stays as it is. The branch has a link back to it, and *Your chats* names both."""

OTHER = """\
You wrote: “{message}”

There is no language model behind this page, so I cannot answer that well. I am a small generator in the example \
project, and I write slowly on purpose: there has to be time to interrupt me. Set `OPENAI_MODEL`, and start the \
example again, to talk to a real one.

I can show you what the page is for, though. While I write this, the text is stored in a stream, piece by piece, and \
your page reads it from there. **Reload the page now**, and the text comes back and goes on. Nothing is lost, \
because the page kept none of it.

These messages get better answers:

- *What happens when I reload?*
- *How does resume work?*
- *What is it good for?*
- *Show me the code*
- *And if the server is killed?*"""

TEXTS = (
    (("kill", "crash", "restart", "deploy", "server die"), CRASH),
    (("code", "python", "function", "django view"), CODE),
    (("resume", "offset", "reconnect"), RESUME),
    (("branch", "edit", "fork"), BRANCH),
    (("good for", "use it", "list", "what for", "used for"), LIST),
    (("reload", "survive", "refresh", "durable"), RELOAD),
)

LONGEST_QUOTE = 200


def text_for(message: str) -> str:
    """The text that answers a message."""
    words = message.lower()
    for keys, text in TEXTS:
        if any(key in words for key in keys):
            return text
    quote = message if len(message) <= LONGEST_QUOTE else message[:LONGEST_QUOTE] + "…"
    return OTHER.replace("{message}", " ".join(quote.split()))
