/** An `EventSource` that goes on after an HTTP error, such as the 502 of a proxy whose server restarts: docs/pages.md
 *
 * A browser closes its own one for ever then. This asks for the status, and while another attempt can succeed, it makes
 * a new `EventSource` at the last id. So it does after 45 seconds without an event, as a network that has gone silent
 * closes nothing: event views send one of their own when nothing happens. One with data tells how many seconds the browser
 * waits before it comes back, where they are many. It stays closed after the end event, and after a refusal.
 * @example const source = new ReconnectingEventSource(url); source.onmessage = (event) => show(event.data) */
export class ReconnectingEventSource extends EventTarget {
	static CONNECTING = 0
	static OPEN = 1
	static CLOSED = 2
	/** @type {((event: Event) => void) | null} */
	onopen = null
	/** @type {((event: MessageEvent) => void) | null} */
	onmessage = null
	/** Called with an event whose `status` is the status of the server where it refuses for good, and 0 before.
	 * @type {((event: Event & {status: number}) => void) | null} */
	onerror = null
	#url
	#init
	#end
	#source
	#delay = FIRST_DELAY
	#silence
	#retry = 0
	#controller = new AbortController()
	#types = new Set()

	/** @param {string | URL} url
	 * @param {EventSourceInit & {end?: string}} [init] `end` is the name of the view's end event. */
	constructor(url, {end = "end", ...init} = {}) {
		super()
		this.#url = new URL(url, location)
		this.#init = init
		this.#end = end
		this.#types.add("message").add(KEEP_ALIVE).add(end)
		this.#open()
	}

	get url() {
		return this.#url.href
	}

	get withCredentials() {
		return !!this.#init.withCredentials
	}

	get readyState() {
		if (this.#controller.signal.aborted) return 2
		return this.#source.readyState == 1 ? 1 : 0
	}

	addEventListener(type, listener, options) {
		super.addEventListener(type, listener, options)
		if (type == "open" || type == "error" || this.#types.has(type)) return
		this.#types.add(type)
		this.#source.addEventListener(type, this.#forward)
	}

	close() {
		this.#controller.abort()
		this.#leave()
	}

	#open() {
		const source = (this.#source = new EventSource(this.#url, this.#init))
		for (const type of this.#types) source.addEventListener(type, this.#forward)
		source.onopen = () => {
			this.#retry = 0
			this.#hear()
			this.#delay = FIRST_DELAY
			this.#tell(new Event("open"))
		}
		source.onerror = () => {
			if (source.readyState == 2) this.#goOn()
			else this.#hear(this.#retry)
			this.#fail(0)
		}
		this.#hear()
	}

	#leave() {
		clearTimeout(this.#silence)
		this.#source.close()
	}

	/** The server is there. A browser that gets nothing more, and no end either, would wait for ever. */
	#hear(wait = 0) {
		clearTimeout(this.#silence)
		this.#silence = setTimeout(() => {
			this.#leave()
			this.#open()
			this.#fail(0)
		}, SILENCE + wait)
	}

	#forward = ({type, data, lastEventId, origin}) => {
		if (type == KEEP_ALIVE && data) this.#retry = Math.min(Math.abs(data) * 1000 || 0, LONGEST_RETRY_AFTER)
		this.#hear()
		if (type == this.#end) this.close()
		else if (lastEventId) this.#url.searchParams.set("offset", lastEventId)
		this.#tell(new MessageEvent(type, {data, lastEventId, origin}))
	}

	#tell(event) {
		const handler = {open: this.onopen, message: this.onmessage, error: this.onerror}[event.type]
		try {
			handler?.call(this, event)
		} finally {
			this.dispatchEvent(event)
		}
	}

	#fail(status) {
		this.#tell(Object.assign(new Event("error"), {status}))
	}

	/** Waits are random, and grow up to 30 seconds. */
	async #goOn() {
		clearTimeout(this.#silence)
		const {signal} = this.#controller
		for (let retryAfter = 0; ; ) {
			const wait = retryAfter + this.#delay * (0.5 + Math.random() / 2)
			this.#delay = Math.min(2 * this.#delay, LONGEST_DELAY)
			await pause(wait, signal)
			if (signal.aborted) return
			const answer = await this.#status(signal)
			const {status} = answer
			retryAfter = answer.retryAfter
			if (signal.aborted) return
			if (status == 200) return this.#open()
			if (!/^(0|408|425|429|5\d\d)$/.test(status) || status == 501) {
				this.close()
				return this.#fail(status)
			}
		}
	}

	/** Returns what the server says of the events, and how long it asks to wait: 200 for events, 0 without an answer. */
	async #status(signal) {
		const asking = new AbortController(), abort = () => asking.abort()
		const timer = setTimeout(abort, LONGEST_DELAY)
		signal.addEventListener("abort", abort)
		try {
			const {status, headers, redirected} = await fetch(this.#url, {
				headers: {Accept: "text/event-stream"},
				credentials: this.withCredentials ? "include" : "same-origin",
				cache: "no-store",
				signal: asking.signal,
			})
			if (status == 200 && !headers.get("content-type")?.startsWith("text/event-stream"))
				return {status: redirected ? 302 : 406}
			// A timer cannot wait for weeks: it would not wait at all.
			const seconds = Math.abs(headers.get("retry-after")) || 0
			return {status, retryAfter: Math.min(seconds * 1000, LONGEST_RETRY_AFTER)}
		} catch {
			return {status: 0, retryAfter: 0}
		} finally {
			clearTimeout(timer)
			signal.removeEventListener("abort", abort)
			asking.abort()
		}
	}
}

const pause = (milliseconds, signal) => new Promise((resolve) => {
	const go = () => {
		clearTimeout(timer)
		signal.removeEventListener("abort", go)
		resolve()
	}
	const timer = setTimeout(go, milliseconds)
	signal.addEventListener("abort", go)
})

const FIRST_DELAY = 500, LONGEST_DELAY = 30_000, LONGEST_RETRY_AFTER = 900_000
const SILENCE = 45_000, KEEP_ALIVE = "keep-alive"
