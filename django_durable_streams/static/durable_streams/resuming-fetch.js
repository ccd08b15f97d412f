/** A `fetch` for the transports of AI SDKs, under which an answer is whole though its connection is cut: docs/ai.md
 *
 * The server names the URL of the answer in `Content-Location`, and returns the same events there each time. So after a
 * cut, or 45 seconds without a byte, this reads the answer again from there, and leaves out the events that the caller has
 * already.
 * @param {string | URL} input
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} */
export async function resumingFetch(input, init = {}) {
	const controller = new AbortController(), {signal} = controller
	const abort = () => controller.abort(init.signal.reason)
	if (init.signal?.aborted) abort()
	else init.signal?.addEventListener("abort", abort, {once: true})
	const forget = () => init.signal?.removeEventListener("abort", abort)
	const response = await fetch(input, {...init, signal}).catch((error) => {
		forget()
		throw error
	})
	const place = response.headers.get("content-location")
	if (!isEvents(response) || !place) return response
	const headers = new Headers(init.headers)
	headers.delete("content-type")
	const {credentials, mode} = init
	const options = {credentials, mode, headers, cache: "no-store", signal}
	const again = (failures) => reopen(new URL(place, response.url), options, failures)
	const events = whole(response, again, signal), encoder = new TextEncoder()
	const body = new ReadableStream({
		async pull(stream) {
			const {done, value} = await events.next().catch((error) => {
				forget()
				throw error
			})
			if (!done) return stream.enqueue(encoder.encode(value))
			forget()
			stream.close()
		},
		cancel(reason) {
			forget()
			controller.abort(reason)
		},
	})
	return new Response(body, {status: response.status, statusText: response.statusText, headers: response.headers})
}

const END = "data: [DONE]\n\n", FIRST_DELAY = 500, LONGEST_DELAY = 30_000, LONGEST_RETRY_AFTER = 900_000
const SILENCE = 45_000

const isEvents = ({ok, body, headers}) => ok && body && /^text\/event-stream/.test(headers.get("content-type"))

async function* whole(response, again, signal) {
	for (let passed = 0, failures = 0; ; response = await again(failures++)) {
		let seen = 0
		try {
			for await (const event of eventsOf(response.body)) {
				if (event.startsWith(":") || ++seen <= passed) continue
				passed = seen
				failures = 0
				yield event
				if (event == END) return
			}
		} catch (error) {
			if (signal.aborted) throw error
		}
	}
}

/** Events as the server of the chat writes them: one ends at an empty line. A cut one is left out. */
async function* eventsOf(body) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader()
	try {
		for (let text = ""; ; ) {
			const {done, value} = await withinSilence(reader.read(), () => reader.cancel().catch(() => {}))
			if (done) return
			const events = (text + value).split("\n\n")
			text = events.pop()
			for (const event of events) yield event + "\n\n"
		}
	} finally {
		reader.cancel().catch(() => {})
	}
}

/** Waits for a promise. A silent network closes nothing, and the server sends a comment when nothing happens. */
async function withinSilence(promise, giveUp) {
	const timer = setTimeout(giveUp, SILENCE)
	try {
		return await promise
	} finally {
		clearTimeout(timer)
	}
}

/** Asks until the server answers. Waits are random, and grow, also over answers that bring nothing new. */
async function reopen(url, init, failures) {
	for (let retryAfter = 0; ; failures++) {
		const delay = Math.min(FIRST_DELAY * 2 ** failures, LONGEST_DELAY)
		await rest(retryAfter + delay * (0.5 + Math.random() / 2), init.signal)
		retryAfter = 0
		let response
		const asking = new AbortController(), abort = () => asking.abort(init.signal.reason)
		init.signal.addEventListener("abort", abort)
		try {
			response = await withinSilence(fetch(url, {...init, signal: asking.signal}), abort)
		} catch (error) {
			if (init.signal.aborted) throw error
			continue
		}
		if (isEvents(response)) return response
		await response.body?.cancel()
		if (!/^(408|425|429|5\d\d)$/.test(response.status) || response.status == 501)
			throw new Error(`The rest of the answer cannot be read (${response.status}).`)
		// A timer cannot wait for weeks: it would not wait at all.
		retryAfter = Math.min(Math.abs(response.headers.get("retry-after")) * 1000 || 0, LONGEST_RETRY_AFTER)
	}
}

function rest(milliseconds, signal) {
	return new Promise((resolve, reject) => {
		const stop = () => {
			clearTimeout(timer)
			reject(signal.reason)
		}
		const timer = setTimeout(() => {
			signal.removeEventListener("abort", stop)
			resolve()
		}, milliseconds)
		if (signal.aborted) stop()
		else signal.addEventListener("abort", stop, {once: true})
	})
}
