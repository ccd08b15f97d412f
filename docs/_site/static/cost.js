// The calculator of the page on cost. The formulas are those of benchmarks/cost_model.py, and the numbers those of the
// table on the page. Without this script the page's tables remain. Loads nothing.

const HEADROOM = 3
const READERS_PER_WORKER = 10000
const CORES_PER_DATABASE = 16
const DAY = 86400

// The numbers of a database, in the order of the table's rows, and a load lead to a plan.
function plan(numbers, load) {
  const [appendUs, databaseUs, readUs, eventUs, readerKb, workerMb, streamBytes, appendBytes] = numbers
  const busy = (load.appends * appendUs + load.reads * readUs + load.events * eventUs) / 1e6
  const workers = Math.max(Math.ceil(busy * HEADROOM), Math.ceil(load.readers / READERS_PER_WORKER), 1)
  const databaseCores = (load.appends * databaseUs) / 1e6
  const writers = databaseUs ? databaseCores / CORES_PER_DATABASE : (load.appends * appendUs) / 1e6
  return {
    workers,
    databases: Math.max(Math.ceil(writers * HEADROOM), 1),
    databaseCores,
    memoryGb: (workers * workerMb * 1e6 + load.readers * readerKb * 1e3) / 1e9,
    diskGb: (load.streams * streamBytes) / 1e9,
    growthGb: (load.appends * DAY * (load.bytes + appendBytes)) / 1e9,
  }
}

const INPUTS = {
  streams: ["Streams", 10000],
  readers: ["Live readers", 10000],
  appends: ["Appends a second", 1000],
  reads: ["Reads a second", 1000],
  events: ["Events to readers a second", 10000],
  bytes: ["Bytes of an append", 100],
}
const OUTPUTS = {
  workers: ["Workers", 0],
  databases: ["Databases", 0],
  databaseCores: ["Busy cores of PostgreSQL", 2],
  memoryGb: ["Memory of the workers, GB", 2],
  diskGb: ["Disk of the streams, GB", 2],
  growthGb: ["Disk of the appends of a day, GB", 2],
}

// The columns of the table of numbers, by the name of the database.
function numbersOf(table) {
  const [head, ...rows] = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()))
  return Object.fromEntries(head.slice(1).map((name, column) => [name, rows.map((row) => Number(row[column + 1]))]))
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties)
  made.append(...children)
  return made
}

function build(place, numbers) {
  const choice = element("select", { name: "database" }, ...Object.keys(numbers).map((name) => new Option(name)))
  const form = element("form", { className: "calculator" }, element("label", {}, "Database", choice))
  for (const [name, [title, value]] of Object.entries(INPUTS)) {
    form.append(element("label", {}, title, element("input", { type: "number", name, value, min: 0, required: true })))
  }
  const result = element("dl", { className: "calculator" })
  result.setAttribute("aria-live", "polite")
  const update = () => {
    const load = Object.fromEntries(Object.keys(INPUTS).map((name) => [name, Math.max(Number(form[name].value), 0)]))
    const planned = plan(numbers[choice.value], load)
    result.replaceChildren(
      ...Object.entries(OUTPUTS).flatMap(([name, [title, digits]]) => {
        const text = planned[name].toLocaleString("en", { maximumFractionDigits: digits })
        return [element("dt", { textContent: title }), element("dd", { textContent: text })]
      }),
    )
  }
  form.addEventListener("input", update)
  form.addEventListener("submit", (event) => event.preventDefault())
  place.append(form, result)
  update()
}

globalThis.costModel = { plan }

if (globalThis.document) {
  document.addEventListener("DOMContentLoaded", () => {
    const place = document.querySelector("section#calculator")
    const table = document.querySelector("section#the-numbers table")
    if (place && table) build(place, numbersOf(table))
  })
}
