// Texts such as "1, 0.5, …", "IN04-IN08=0.5" or "cosine+.25" as a number per block, and back.
// The rules are those of the trainer (trainer/families/block_vectors.py); names, lists and curves come from it with the node's definition.

const ASSIGNMENT = /\s*([=-])\s*/g
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i // Number() alone also takes 0x10
export const isWord = (value) => typeof value === 'string' // such as R, which is random
export const rounded = (value) => (isWord(value) ? value : String(Math.round(value * 1000) / 1000))

// A number, one of the words, or undefined for anything else.
function number(text, words = []) {
  const plain = text.trim().replace(/(\d)_(?=\d)/g, '$1') // Python reads 1_000 as 1000
  const value = NUMBER.test(plain) ? Number(plain) : NaN
  const word = plain.toUpperCase()
  return Number.isFinite(value) ? value : words.includes(word) ? word : undefined
}

// What stands before the first `mark`, and what after it; undefined where there is none.
function partition(text, mark) {
  const place = text.indexOf(mark)
  return place < 0 ? [text] : [text.slice(0, place), text.slice(place + 1)]
}

// The names of "IN04" or "IN04-IN08" in the order of `names`; none for unknown ones and for a range written backwards.
function expand(entry, names) {
  const [first, last] = partition(entry.toUpperCase(), '-')
  const [from, to] = [names.indexOf(first), names.indexOf(last || first)]
  return from < 0 || to < 0 ? [] : names.slice(from, to + 1)
}

// {values: {name: number or word}, layout}; null where the text does not fit these names.
// `layouts` are the lists that may be written, each with entries of one or more names; `filler` is what a list leaves out.
export function read(text, space) {
  const found = parse(text, space)
  return found && !Object.values(found.values).includes(undefined) ? found : null
}

function parse(text, { names, layouts, curves = {}, words, filler = () => 1 }) {
  const all = (value) => Object.fromEntries(names.map((name) => [name, value]))
  text = text.trim()
  if (!text) return { values: all(1) }
  if (text.includes('=')) {
    const values = all(1)
    for (const item of text.replace(ASSIGNMENT, '$1').split(/[,\s]+/).filter(Boolean)) {
      const [entry, value = ''] = partition(item, '=')
      const [found, weight] = [expand(entry, names), number(value, words)]
      if (!found.length || weight === undefined) return null
      for (const name of found) values[name] = weight
    }
    return { values }
  }
  const [, curve, base] = text.match(/^([a-z_]+)\s*([+-].*)?$/i) ?? []
  if (curve && Object.hasOwn(curves, curve.toLowerCase())) {
    const points = curves[curve.toLowerCase()]
    const offset = base ? number(base.replaceAll(' ', '')) : 0
    const sum = (point) => Number((point + offset).toPrecision(12)) // 0.1 + 0.2 as a person writes it
    return offset === undefined ? null : { values: Object.fromEntries(names.map((name, place) => [name, sum(points[place])])) }
  }
  const items = text.split(',')
  if (items.length === 1) return { values: all(number(text, words)) }
  const layout = layouts.find((candidate) => candidate.length === items.length)
  if (!layout) return null
  const values = Object.fromEntries(names.map((name) => [name, filler(name)]))
  layout.forEach((entry, place) => entry.forEach((name) => (values[name] = number(items[place].trim() || '0', words))))
  return { values, layout }
}

// A text that gives these values: the list that `before` was, where they fit into it, or else the shortest.
export function write(values, space, before, ones) {
  const { names, layouts, filler = () => 1 } = space
  const list = (layout) => {
    const inside = new Set(layout.flat())
    const fits = (entry) => entry.every((name) => Object.is(values[name], values[entry[0]]))
    if (!layout.every(fits) || names.some((name) => !inside.has(name) && values[name] !== filler(name))) return null
    return layout.map(([name]) => String(values[name])).join(', ')
  }
  if (before?.layout) {
    const same = list(before.layout)
    if (same) return same
  }
  const runs = []
  for (const name of names) {
    const last = runs.at(-1)
    if (last && Object.is(values[last[0]], values[name])) last.push(name)
    else runs.push([name])
  }
  const named = runs
    .filter(([name]) => values[name] !== 1)
    .map((run) => `${run.length > 1 ? `${run[0]}-${run.at(-1)}` : run[0]}=${values[run[0]]}`)
  if (!named.length) return ones
  const candidates = [named.join(', '), ...layouts.map(list).filter(Boolean)]
  return candidates.reduce((best, text) => (text.length < best.length ? text : best))
}
