/** Follows a stream: docs/browser.md
 * @param {string | URL} url
 * @param {RequestInit & {onmessage(message, offset: string), onend?(), onerror?(status: number), onreset?(),
 * offset?: string, share?}} options */
export async function follow(url, {offset = "-1", onmessage, onend, onerror, onreset, signal, headers, share = !headers, ...init}) {
	if (signal?.aborted) return
	const base = new URL(url, location)
	base.hash = ""
	base.search += "&offset="
	const key = (share || Math.random()) + base, tabs = new BroadcastChannel(key)
	// `had` after `at`.
	let [at, had] = offset.split("~"), decode, pace = 250, list, led, leads, over, step
	const call = (f, a, b) => queueMicrotask(() => signal?.aborted || f?.(a, b))
	const quit = () => {led = 0; step?.abort()}
	const look = () => {
		quit()
		leads = leads?.()
		navigator.locks?.request(key, () => over || document.hidden || new Promise(done => {leads = done; led && quit()}))
	}
	const end = (f, a) => {
		over = 1
		look()
		removeEventListener("visibilitychange", look)
		tabs.close()
		call(f, a)
	}
	const take = ([from, to, list, closed]) => {
		if (from == at) list.forEach((item, n) => had-- > 0 || call(onmessage, item, ++n in list ? from + "~" + n : to), at = to)
		closed && to == at && end(onend, leads = null)
	}
	tabs.onmessage = ({data: news}) => {
		if (leads) news || tabs.postMessage([at, at, []])
		else if (news && decode && !document.hidden) led | (take(news), led = news[1] == at) && step.abort()
	}
	const parse = (_, type, data) => {
		data = data.replace(/(^|\n)data: ?/g, "$1")
		if (type == "data") list = list.concat(decode(data))
		else {
			const told = JSON.parse(data), news = [at, told.streamNextOffset, list, told.streamClosed]
			tabs.postMessage(leads && news)
			take(news)
			list = []
			pace = 250
		}
	}
	addEventListener("visibilitychange", look)
	signal?.addEventListener("abort", end)
	for (look(); !over; led &&= step.signal.aborted) {
		const {signal} = step = new AbortController(), timer = setInterval(() => ++quiet > 2 && step.abort(), 15e3)
		let wait = 9e4, rest = "", quiet = 0
		if (!document.hidden & !led) try {
			wait = Math.random() * Math.min(pace *= 2, 3e4)
			list = []
			const {ok, status, body, headers: h} = await fetch(base + (decode ? at + "&live=sse" : "now"), {...init, headers, cache: "no-store", redirect: "manual", signal})
			if (status == 410 && decode && onreset) call(onreset, at = "-1", had = decode = 0)
			else if (ok ? !decode && !h.has("stream-next-offset") : !/408|42[59]|^5(?!01)/.test(status)) end(onerror, status)
			else if (!ok) wait += Math.min(Math.abs(h.get("retry-after")) * 1e3 || 0, 9e5)
			else if (decode) await body.pipeThrough(new TextDecoderStream()).pipeTo(new WritableStream({write(text) {
				quiet = 0
				rest = (rest + text).replace(/[^]*?event: ?(\w+)\n(data:[^]*?)\n\n/g, parse)
			}}))
			else decode = /n\/json *(;|$)/i.test(h.get("content-type")) ? JSON.parse : String, wait = 0
		} catch {}
		clearInterval(timer)
		signal.aborted || await new Promise(go => setTimeout(signal.onabort = go, wait))
	}
}
