/** Follows a stream: docs/browser.md
 * @param {string | URL} url
 * @param {RequestInit & {onmessage(message, offset: string), onend?(), onerror?(status: number), onreset?(),
 * offset?: string, share?}} options */
export async function follow(url, {offset = "-1", onmessage, onend, onerror, onreset, signal, headers, share = !headers, ...init}) {
	if (signal?.aborted) return
	const target = new URL(url, location)
	target.hash = ""
	target.search += "&offset="
	const key = (share || Math.random()) + target, tabs = new BroadcastChannel(key)
	// `had` after `at`.
	let [at, had] = offset.split("~"), decode, delay = 250, items, joined, leads, over, step
	const call = (f, a, b) => queueMicrotask(() => signal?.aborted || f?.(a, b))
	const leave = () => {joined = 0; step?.abort()}
	const look = () => {
		leave()
		leads = leads?.()
		navigator.locks?.request(key, () => over || document.hidden || new Promise(done => {leads = done; joined && leave()}))
	}
	const end = (f, a) => {
		over = 1
		look()
		removeEventListener("visibilitychange", look)
		tabs.close()
		call(f, a)
	}
	const take = ([from, to, items, closed]) => {
		if (from == at) {
			at = to
			items.forEach((item, n) => had-- > 0 || call(onmessage, item, ++n < items.length ? from + "~" + n : to))
		}
		if (closed && to == at) {leads = null; end(onend)}
	}
	tabs.onmessage = ({data: news}) => {
		if (leads) return news || tabs.postMessage([at, at, []])
		if (!news || !decode || document.hidden) return
		take(news)
		joined | (joined = news[1] == at) && step.abort()
	}
	const parse = (_, type, data) => {
		data = data.replace(/(^|\n)data: ?/g, "$1")
		if (type == "data") items = items.concat(decode(data))
		else {
			const told = JSON.parse(data), news = [at, told.streamNextOffset, items, told.streamClosed]
			tabs.postMessage(leads && news)
			take(news)
			items = []
			delay = 250
		}
		return ""
	}
	addEventListener("visibilitychange", look)
	signal?.addEventListener("abort", end)
	for (look(); !over; joined &&= step.signal.aborted) {
		const {signal} = step = new AbortController()
		let wait = 9e4, rest = ""
		if (!document.hidden && !joined) try {
			wait = Math.random() * Math.min(delay *= 2, 3e4)
			items = []
			const {ok, status, body, headers: h} = await fetch(target + (decode ? at + "&live=sse" : "now"),
				{...init, headers, cache: "no-store", redirect: "manual", signal})
			if (status == 410 && decode && onreset) call(onreset, at = "-1", had = decode = 0)
			else if (ok ? !decode && !h.has("stream-next-offset") : !/408|42[59]|^5(?!01)/.test(status)) end(onerror, status)
			else if (!ok) wait += Math.min(Math.abs(h.get("retry-after")) * 1e3 || 0, 9e5)
			else if (decode) await body.pipeThrough(new TextDecoderStream()).pipeTo(new WritableStream({write(text) {
				rest = (rest + text).replace(/[^]*?event: ?(\w+)\n(data:[^]*?)\n\n/g, parse)
			}}), {signal})
			else decode = /n\/json *(;|$)/i.test(h.get("content-type")) ? JSON.parse : String, wait = 0
		} catch {}
		signal.aborted || await new Promise(go => setTimeout(signal.onabort = go, wait))
	}
}
