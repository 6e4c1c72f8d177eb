// Texts such as "1, 0.5, …", "IN04-IN08=0.5" or "cosine+.25" as a number per block, and back.
// The rules are those of the trainer (trainer/families/block_vectors.py); names, lists and curves come from it with the node's definition.

const ASSIGNMENT = /\s*([=-])\s*/g
export const isWord = (value) => typeof value === 'string' // such as R, which is random
export const rounded = (value) => (isWord(value) ? value : String(Math.round(value * 1000) / 1000))

// A number, one of the words, or undefined for anything else.
function number(text, words = []) {
  const value = text.trim() === '' ? NaN : Number(text)
  const word = text.trim().toUpperCase()
  return Number.isFinite(value) ? value : words.includes(word) ? word : undefined
}

// The names of "IN04" or "IN04-IN08" in the order of `names`; null for unknown ones.
function expand(entry, names) {
  const [first, last = first] = entry.toUpperCase().split('-')
  const [from, to] = [names.indexOf(first), names.indexOf(last)]
  return from < 0 || to < 0 ? null : names.slice(from, to + 1)
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
      const [entry, value] = item.split('=')
      const found = expand(entry, names)
      if (!found || value === undefined) return null
      for (const name of found) values[name] = number(value, words)
    }
    return { values }
  }
  const [, curve, base] = text.match(/^([a-z_]+)\s*([+-].*)?$/i) ?? []
  const points = curves[curve?.toLowerCase()]
  if (points) {
    const offset = base ? number(base.replaceAll(' ', '')) : 0
    return { values: Object.fromEntries(names.map((name, place) => [name, offset === undefined ? offset : points[place] + offset])) }
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
    return layout.map(([name]) => rounded(values[name])).join(', ')
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
    .map((run) => `${run.length > 1 ? `${run[0]}-${run.at(-1)}` : run[0]}=${rounded(values[run[0]])}`)
  if (!named.length) return ones
  const candidates = [named.join(', '), ...layouts.map(list).filter(Boolean)]
  return candidates.reduce((best, text) => (text.length < best.length ? text : best))
}
