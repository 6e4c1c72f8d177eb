// Run inside ComfyUI's page: everything that is wrong with the open workflow, as [{node, type, problem}].
// Knows the frontends from 1.27 (dialogs, node.has_errors) to 1.49 (Pinia error stores).
() => {
  const app = window.app
  const found = []
  const report = (node, problem) =>
    found.push({ node: node ? String(node.id) : '', type: node?.type ?? '', problem })

  const MUTED = 2
  const BYPASSED = 4

  function visit(graph) {
    for (const node of graph.nodes) {
      if (!window.LiteGraph.registered_node_types[node.type]) report(node, 'unknown node type')
      if (node.has_errors) report(node, 'is drawn red')
      for (const widget of node.widgets ?? []) inspectWidget(node, widget)
      inspectSlots(graph, node)
      if (node.subgraph) visit(node.subgraph)
    }
  }

  // A saved value of the wrong type is what a workflow shows when a node gained or lost a widget.
  const WANTED_TYPE = { number: 'number', slider: 'number', toggle: 'boolean', text: 'string', customtext: 'string' }

  function inspectWidget(node, widget) {
    const { name, type, value } = widget
    const options = widget.options ?? {}
    const wanted = WANTED_TYPE[type]
    if (wanted && (typeof value !== wanted || Number.isNaN(value)))
      report(node, `${name}: ${JSON.stringify(value)} is not a ${wanted}`)
    else if (wanted === 'number' && (value < options.min || value > options.max))
      report(node, `${name}: ${value} is outside ${options.min} … ${options.max}`)
    if (type === 'combo' && options.values) {
      const values = typeof options.values === 'function' ? options.values(widget, node) : options.values
      const choices = Array.isArray(values) ? values : Object.keys(values)
      if (!choices.includes(value))
        report(node, `${name}: ${JSON.stringify(value)} is not one of ${JSON.stringify(choices.slice(0, 20))}`)
    }
  }

  function inspectSlots(graph, node) {
    const definition = node.constructor.nodeData
    const isServerNode = !node.subgraph && definition?.python_module && definition.input
    const required = isServerNode ? definition.input.required ?? {} : {}
    const known = { ...required, ...(isServerNode ? definition.input.optional : {}) }
    const sleeps = node.mode === MUTED || node.mode === BYPASSED
    for (const slot of node.inputs ?? []) {
      const rootName = slot.name.split('.')[0] // dynamic inputs are called name.part
      if (isServerNode && !(rootName in known)) report(node, `${slot.name}: the node has no such input`)
      if (slot.link != null) inspectLink(graph, node, slot)
      else if (slot.name in required && !slot.widget && !sleeps)
        report(node, `${slot.name}: the required input is not connected`)
    }
    // An output that nothing uses may be that of a later ComfyUI: SaveImage and PreviewAny had none in 2025.
    const unknown = isServerNode ? (node.outputs ?? []).slice(definition.output.length) : []
    for (const output of unknown)
      if (output.links?.length) report(node, `${output.name}: the node has no such output`)
  }

  function inspectLink(graph, node, slot) {
    const link = graph.getLink ? graph.getLink(slot.link) : graph.links[slot.link]
    if (!link) return report(node, `${slot.name}: its link is lost`)
    if (link.origin_id < 0) return // comes from the subgraph's own input
    const output = graph.getNodeById(link.origin_id)?.outputs?.[link.origin_slot]
    if (!output) report(node, `${slot.name}: its link comes from nowhere`)
    else if (!window.LiteGraph.isValidConnection(output.type, slot.type))
      report(node, `${slot.name}: takes ${slot.type} but is fed ${output.type}`)
  }

  function inspectStores() {
    const byId = (id) => app.rootGraph?.getNodeById?.(id) ?? app.graph.getNodeById(id) ?? { id }
    const root = document.querySelector('#vue-app')?.__vue_app__
    const stores = root?.config.globalProperties.$pinia?._s ?? new Map()
    const errors = stores.get('executionError') ?? {}
    for (const [id, entry] of Object.entries(errors.lastNodeErrors ?? app.lastNodeErrors ?? {}))
      for (const error of entry.errors) report(byId(id), `${error.message}: ${error.details}`)
    const crash = errors.lastExecutionError ?? app.lastExecutionError
    if (crash) report(byId(crash.node_id), `${crash.exception_type}: ${crash.exception_message}`)
    const refusal = errors.lastPromptError
    if (refusal) report(null, `${refusal.message} ${refusal.details}`)
    for (const missing of stores.get('missingNodesError')?.missingNodesError?.nodeTypes ?? [])
      report(byId(missing.nodeId ?? ''), `missing node pack for ${missing.type ?? missing}`)
    for (const store of ['missingModel', 'missingMedia'])
      for (const file of stores.get(store)?.[`${store}Candidates`] ?? [])
        if (file.isMissing) report(byId(file.nodeId), `${file.widgetName}: missing file ${file.name}`)
  }

  function inspectPage() {
    const SHOUTING = '[role=dialog], .p-toast-message-warn, .p-toast-message-error'
    for (const element of document.querySelectorAll(SHOUTING))
      if (element.checkVisibility()) report(null, `on screen: ${element.innerText.replace(/\s+/g, ' ').trim()}`)
  }

  visit(app.rootGraph ?? app.graph)
  inspectStores()
  inspectPage()
  return found
}
