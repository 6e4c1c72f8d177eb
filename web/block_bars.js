// Block weights as bars on the node: one per block, over the network's shape. Dragging writes the text, the text moves the bars.
// The text is the value; the bars have none, so that a workflow in API format needs only the text.

import { app } from '../../scripts/app.js'
import { isWord, read, rounded, write } from './block_vector.js'

const OPTION = 'block_bars'
const HEIGHT = 190
const STEP = 0.05 // of dragging; with Shift 0.01
const TEXTS = {
  en: { curve: 'curve …', all: 'all blocks', down: 'in', up: 'out', linked: 'comes from another node', unread: 'the text fits no model' },
  zh: { curve: '曲线 …', all: '全部', down: '输入块', up: '输出块', linked: '由其他节点提供', unread: '文本不符合任何模型' },
}
const STYLE = `
.lf-bars { display: flex; flex-direction: column; gap: 4px; height: 100%; min-height: ${HEIGHT}px; box-sizing: border-box;
  font: 11px sans-serif; color: var(--input-text, #ddd); user-select: none; }
.lf-bars-head { display: flex; gap: 4px; align-items: center; height: 20px; }
.lf-bars select { height: 20px; font: inherit; color: inherit; background: var(--comfy-input-bg, #222);
  border: 1px solid var(--border-color, #444); border-radius: 4px; max-width: 45%; }
.lf-bars-readout { margin-left: auto; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.lf-bars-strip { display: flex; flex: 1; gap: 1px; min-height: 0; cursor: ns-resize; touch-action: none;
  background: var(--comfy-input-bg, #222); border-radius: 4px; padding: 2px; }
.lf-bars-strip.off { opacity: 0.4; pointer-events: none; }
.lf-block { flex: 1; min-width: 0; display: flex; flex-direction: column; }
.lf-area { position: relative; flex: 1; min-height: 0; }
.lf-area::before { content: ''; position: absolute; left: 0; right: 0; bottom: var(--one); border-top: 1px dashed #8886; }
.lf-bar { position: absolute; left: 8%; right: 8%; border-radius: 2px; min-height: 1px; }
.lf-bar.word { opacity: 0.35; }
.lf-name { height: 62px; overflow: hidden; font-size: 9px; line-height: 1; writing-mode: vertical-rl; box-sizing: border-box; }
.lf-name span { border-left: 2px solid; padding: 1px 0; }
`

const words = () => (String(app.extensionManager?.setting?.get('Comfy.Locale') ?? '').startsWith('zh') ? TEXTS.zh : TEXTS.en)

function element(tag, className, parent) {
  const made = document.createElement(tag)
  made.className = className
  parent?.append(made)
  return made
}

class BlockBars {
  constructor(node, data) {
    this.node = node
    this.data = data
    this.words = words()
    this.root = element('div', 'lf-bars')
    const head = element('div', 'lf-bars-head', this.root)
    this.models = element('select', 'lf-bars-models', head)
    this.curves = element('select', 'lf-bars-curves', head)
    this.readout = element('span', 'lf-bars-readout', head)
    this.strip = element('div', 'lf-bars-strip', this.root)
    data.models.forEach((model, place) => this.models.add(new Option(model.title, place)))
    this.models.onchange = () => {
      node.properties[OPTION] = data.models[this.models.value].title // kept in the workflow, for looks alone
      this.refresh()
    }
    this.curves.onchange = () => this.pick(this.curves.value)
    this.listen()
    this.refresh()
  }

  widget(name) {
    return this.node.widgets.find((widget) => widget.name === name)
  }

  text(name) {
    const { preset, vectors, whole } = this.data
    const chosen = preset && name === whole ? this.widget(preset.input).value : preset?.own
    const text = String((chosen === preset?.own ? this.widget(name)?.value : vectors[chosen]) ?? '')
    return vectors[text.trim().toUpperCase()] ?? text // also the name of a preset
  }

  // The inputs that count, each with its part of the network: {input, space}, by the rules of `read`.
  spaces(model) {
    const { whole, parts } = this.data
    if (parts.length && !this.text(whole).trim())
      return parts.map((part) => {
        const names = model.blocks.filter((block) => block.part === part).map((block) => block.name)
        return { input: part, space: { names, layouts: [names.map((name) => [name])], curves: model.curves[part] } }
      })
    const filler = (name) => (model.text.includes(name) ? 1 : 0) // what a list has no place for
    return [{ input: whole, space: { names: model.blocks.map((block) => block.name), layouts: model.layouts, words: this.data.words, filler } }]
  }

  read(model) {
    const found = this.spaces(model).map(({ input, space }) => ({ input, space, before: read(this.text(input), space) }))
    return found.every(({ before }) => before) ? found : null
  }

  // Shows the text as it is now, for the chosen model or for one that it fits.
  refresh() {
    const { models } = this.data
    const chosen = models.find((model) => model.title === this.node.properties?.[OPTION])
    const order = [chosen, this.model, ...models].filter(Boolean)
    this.model = order.find((model) => this.read(model)) ?? order[0]
    this.models.value = models.indexOf(this.model)
    this.found = this.read(this.model) ?? []
    const linked = this.found.some(({ input }) => this.isLinked(input))
    this.strip.classList.toggle('off', linked || !this.found.length)
    this.draw(this.model.blocks.filter(({ name }) => this.found.some(({ space }) => space.names.includes(name))))
    this.readout.textContent = linked ? this.words.linked : this.found.length ? '' : this.words.unread
    this.fillCurves()
  }

  isLinked(input) {
    return (this.node.inputs ?? []).some((slot) => slot.widget?.name === input && slot.link != null)
  }

  draw(blocks) {
    const values = Object.assign({}, ...this.found.map(({ before }) => before.values))
    const numbers = Object.values(values).filter((value) => !isWord(value))
    if (!this.dragging) {
      this.low = Math.min(0, ...numbers.map((value) => Math.floor(value * 2) / 2))
      this.high = Math.max(1.5, ...numbers.map((value) => Math.ceil(value * 2) / 2))
    }
    const height = (value) => (100 * (value - this.low)) / (this.high - this.low)
    this.strip.style.setProperty('--one', `${height(1)}%`)
    const deepest = Math.max(1, ...blocks.map((block) => block.level))
    while (this.strip.children.length > blocks.length) this.strip.lastChild.remove()
    blocks.forEach(({ name, level, colour }, number) => {
      const block = this.strip.children[number] ?? this.makeBlock()
      const [bar, label] = [block.querySelector('.lf-bar'), block.querySelector('span')]
      const value = values[name]
      const shown = isWord(value) ? this.high : value
      block.dataset.block = name
      block.dataset.value = value
      block.title = `${name} ${rounded(value)}`
      bar.classList.toggle('word', isWord(value))
      Object.assign(bar.style, {
        background: colour,
        bottom: `${height(Math.min(0, shown))}%`,
        height: `${height(Math.max(0, shown)) - height(Math.min(0, shown))}%`,
      })
      label.textContent = blocks.length > 40 && number % 3 ? '' : name // thin bars have no room for every name
      Object.assign(label.style, { borderColor: colour, marginTop: `${Math.round((26 * level) / deepest)}px` })
    })
  }

  makeBlock() {
    const block = element('div', 'lf-block', this.strip)
    element('div', 'lf-bar', element('div', 'lf-area', block))
    element('span', '', element('div', 'lf-name', block))
    return block
  }

  fillCurves() {
    const curves = this.model.curves
    const groups = this.found.length > 1 || !this.data.parts.length ? Object.entries(curves) : []
    this.curves.replaceChildren(new Option(this.words.curve, ''))
    for (const [part, names] of [...groups, ['all', { 1: 1, 0: 0 }]]) {
      const group = element('optgroup', '', this.curves)
      group.label = this.words[part] ?? part
      for (const name of Object.keys(names)) group.append(new Option(name, `${part}:${name}`))
    }
  }

  pick(choice) {
    const [part, name] = choice.split(':')
    const points = this.model.curves[part]?.[name]
    if (points && this.data.parts.includes(part)) this.set(part, name)
    else if (points) {
      const names = this.model.blocks.filter((block) => block.part === part).map((block) => block.name)
      this.change(Object.fromEntries(names.map((block, place) => [block, points[place]])))
    } else if (part === 'all')
      this.change(Object.fromEntries(this.found.flatMap(({ space }) => space.names).map((block) => [block, Number(name)])))
    this.refresh()
  }

  // Gives blocks new values, in the texts that they stand in.
  change(values) {
    for (const { input, space, before } of this.found) {
      const mine = Object.fromEntries(Object.entries(values).filter(([name]) => space.names.includes(name)))
      if (!Object.keys(mine).length) continue
      if (before.layout) // an entry of a list such as M00-M02 is one number
        for (const entry of before.layout) for (const name of entry) if (name in mine) entry.forEach((other) => (mine[other] = mine[name]))
      this.set(input, write({ ...before.values, ...mine }, space, before, this.data.ones))
    }
  }

  set(input, text) {
    const { preset, whole } = this.data
    const targets = [[input, text], ...(preset && input === whole ? [[preset.input, preset.own]] : [])]
    for (const [name, value] of targets) {
      const widget = this.widget(name)
      if (widget.value === value) continue
      widget.value = value
      widget.callback?.(value)
    }
    this.node.setDirtyCanvas?.(true, true)
  }

  // The block and the value under the pointer.
  drag(event) {
    const blocks = [...this.strip.children]
    const block = blocks.find((candidate) => event.clientX < candidate.getBoundingClientRect().right) ?? blocks.at(-1)
    const area = block.querySelector('.lf-area').getBoundingClientRect()
    const step = event.shiftKey ? 0.01 : STEP
    const value = this.low + ((area.bottom - event.clientY) / area.height) * (this.high - this.low)
    const number = Math.round(Math.min(this.high, Math.max(this.low, value)) / step) * step
    this.change({ [block.dataset.block]: Number(rounded(number)) })
    this.refresh()
    this.readout.textContent = block.title
  }

  listen() {
    const { strip } = this
    const own = (event) => event.stopPropagation() // the node must not move along
    strip.addEventListener('pointerdown', (event) => {
      own(event)
      if (event.button) return
      this.refresh()
      strip.setPointerCapture(event.pointerId)
      this.dragging = true
      this.drag(event)
    })
    strip.addEventListener('pointermove', (event) => {
      own(event)
      if (this.dragging) this.drag(event)
      else this.readout.textContent = event.target.closest('.lf-block')?.title ?? ''
    })
    for (const kind of ['pointerup', 'pointercancel', 'lostpointercapture'])
      strip.addEventListener(kind, () => {
        this.dragging = false
        this.refresh()
      })
    this.root.addEventListener('pointerenter', () => this.dragging || this.refresh())
    this.models.addEventListener('pointerdown', own)
    this.curves.addEventListener('pointerdown', own)
    const { parts, whole, preset } = this.data
    for (const name of [...parts, whole, ...(preset ? [preset.input] : [])]) {
      const widget = this.widget(name)
      widget.callback = chained(widget.callback, () => this.dragging || this.refresh())
    }
    for (const event of ['onConfigure', 'onConnectionsChange'])
      this.node[event] = chained(this.node[event], () => queueMicrotask(() => this.refresh()))
  }
}

function chained(first, second) {
  return function (...values) {
    const result = first?.apply(this, values)
    second()
    return result
  }
}

app.registerExtension({
  name: 'LoraFurnace.BlockBars',
  setup() {
    document.head.append(Object.assign(document.createElement('style'), { textContent: STYLE }))
  },
  nodeCreated(node) {
    const { required, optional } = node.constructor.nodeData?.input ?? {}
    const data = Object.values({ ...required, ...optional }).find((entry) => entry?.[1]?.[OPTION])?.[1][OPTION]
    if (!data || !node.addDOMWidget) return
    const bars = new BlockBars(node, data)
    const widget = node.addDOMWidget('blocks', 'lora_furnace_block_bars', bars.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => HEIGHT,
    })
    widget.serialize = false
    node.setSize?.([Math.max(node.size[0], 420), node.computeSize()[1]])
  },
})
