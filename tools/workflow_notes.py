"""What the notes of the example workflows say, in English and Chinese."""

FIRST_NOTE = """\
## Your first LoRA
Press **Run**. Nothing has to be downloaded: *Demo Base* is a tiny model that comes with this pack, and it has never seen the \
mascot **zibu**. Twelve pictures teach it.

1. *Train LoRA* shows step, loss and time left, and samples as they are drawn. **Cancel keeps the work**: run again to go on.
2. The LoRA is saved to `models/loras`, a file every three epochs.
3. *Strength Test* draws every file at every strength. Choose the file that looks best: the last is not always it.

Run it twice: nothing is trained again. Change a setting, and a new LoRA `zibu_2` is made.

Next: the template **sd15_lora**, with your own pictures.

---
## 训练第一个 LoRA
点击 **运行**。无需下载任何文件：*演示底模* 是随本插件附带的微型模型，它从未见过吉祥物 **zibu**，用十二张图片教会它。

1. *训练 LoRA* 节点显示步数、损失、剩余时间和样图。**取消不会丢失进度**：再次运行即可继续。
2. LoRA 保存到 `models/loras`，每三轮保存一个文件。
3. *LoRA 强度测试* 用每个文件、每种强度各画一张图。选最好看的：最后一个不一定最好。

再次运行不会重复训练；修改参数后会生成新的 `zibu_2`。

下一步：打开模板 **sd15_lora**，用你自己的图片训练。
"""
SD15_NOTE = """\
## A LoRA of your own pictures
1. Put 10 to 50 pictures into a folder **inside ComfyUI's `input` folder**, here `input/my_pictures`. Beside each picture, a text \
file of the same name says what is on it: `001.png`, `001.txt`. Begin each text with a word that no one uses, such as `sks cat`.
2. Choose the folder and the checkpoint (both loaders: the left one trains, the right one tests). Press **Run**.
3. Look at the grid: files across, strengths down. Use the best file with *Load LoRA*.

No captions? Name the folder `10_sks cat`: 10 repeats, and "sks cat" is the caption. Little memory? Training Settings → \
gradient_checkpointing. **Cancel keeps the work**: run again to go on.

---
## 用自己的图片训练 LoRA
1. 准备 10 到 50 张图片，放进 **ComfyUI 的 `input` 文件夹中的子文件夹**，这里是 `input/my_pictures`。每张图片旁放一个同名文本文件描述\
画面：`001.png`、`001.txt`。每段文字以一个生僻词开头，例如 `sks cat`。
2. 选择图片文件夹和大模型（两个加载器：左边用于训练，右边用于测试），点击 **运行**。
3. 看对比图：横向是文件，纵向是强度。用 *加载 LoRA* 载入最好的文件。

没有标注？把文件夹命名为 `10_sks cat`：重复 10 次，标注为 “sks cat”。显存小？打开 *训练参数* 里的 **梯度检查点**。\
**取消不会丢失进度**：再次运行即可继续。
"""
BLOCKS_NOTE = """\
## Block-wise training
A LoRA need not train every block. *Block Weights* gives each block of the network its own learning rate: drag the bars, pick a curve, or \
write the text. Here the input blocks have 0: they are not trained and not saved. Nothing has to be downloaded; press **Run**.

1. *Train LoRA* says which block got which rate (also in ComfyUI's log).
2. *Strength Test* shows that middle and output blocks alone are enough for the mascot **zibu**.
3. *LoRA Block Analysis* leaves out one block after the other and counts the pixels that change: long bars are blocks that matter.

---
## 分层训练
LoRA 不必训练所有的块。*分层权重* 给网络的每一块单独的学习率：拖动柱子、选择曲线或直接写文本。这里输入块为 0：不训练也不保存。\
无需下载任何文件，点击 **运行**。

1. *训练 LoRA* 会说明每块的学习率（ComfyUI 的日志中也有）。
2. *LoRA 强度测试*：只用中间块和输出块就能学会吉祥物 **zibu**。
3. *LoRA 分层分析* 逐块去掉再画，统计改变的像素：柱子越长，该块越重要。
"""
LBW_NOTE = """\
## Which blocks of a LoRA matter, and using only those
1. Choose your checkpoint, and your LoRA on both nodes. Write a prompt that the LoRA is for.
2. *LoRA Block Analysis* draws the picture once with the whole LoRA, then without one block after the other, at the same seed. The chart \
shows how many pixels each block changes, the sheet where. It draws about 18 pictures per seed.
3. Its **vector** goes to *Load LoRA (Block Weight)*: blocks that change next to nothing get 0. To choose for yourself, disconnect it and \
drag the bars, or choose a preset.

---
## LoRA 的哪些块有用，只用这些块
1. 选择大模型，并在两个节点上选择你的 LoRA，写一个适合该 LoRA 的提示词。
2. *LoRA 分层分析* 先用完整的 LoRA 画一张，再用相同的种子逐块去掉来画。图表显示每块改变多少像素，对照图显示改变的位置。每个种子约画 18 张。
3. **建议权重** 连接到 *加载 LoRA（分层权重）*：几乎没有影响的块为 0。想自己决定，可断开连接，拖动柱子或选择预设。
"""
EXPERT_NOTE = """\
## Every setting in its place
The same training as **first_lora**, with the settings taken apart. Each node is optional; connect as many as you need, in a chain.

- *Demo Base* → *Captions* → *Augmentation*: what becomes of the pictures and captions at each use. (*Loss Masks* and *Regularisation \
Folder* go there too.)
- *Training Settings* → *Optimizer* → *Learning-Rate Schedule* → *Loss & Noise* → *Samples*: of two nodes that set the same thing, the one \
nearer to *Train LoRA* wins. A node that replaces something says so.
- *Load Preset* lays its values over all that, with a reason for each; your **changes** win over it. The notes mark them with ✗.
- *Save Configuration* writes everything to a file for *Load Configuration* and for the command line.

Cancelled, crashed, or wanting more epochs: *Resume Training* goes on with any run of `output/lora_furnace`.

---
## 每个设置单独一个节点
与 **first_lora** 相同的训练，但设置分开放置。每个节点都可省略；按需要串联。

- *演示底模* → *标注变化* → *图片增强*：图片和标注每次使用时的变化。（*损失遮罩* 和 *正则化图片* 也接在这里。）
- *训练参数* → *优化器* → *学习率调度* → *损失与噪声* → *样图*：两个节点设置同一项时，离 *训练 LoRA* 更近的优先。替换了设置的节点会说明。
- *载入预设* 把它的值放在最上面，每项都有理由；**自己的改动** 优先于它，说明中以 ✗ 标出。
- *保存配置* 把全部设置写入文件，供 *载入配置* 和命令行使用。

取消、崩溃或想多训练几轮：*继续训练* 可继续 `output/lora_furnace` 中的任何训练。
"""
GRID_NOTE = """\
## Which file, at which strength?
Press **Run**: a LoRA of the mascot **zibu** is trained on the *Demo Base*, then every saved file is drawn at seven strengths.

1. *X/Y/Z Grid*: files across, strengths down; below it what was measured on each picture. **Cancel, and run again: only what is \
missing is drawn.**
2. *LoRA Advice* says in words which file to use at which strength, what speaks against the others, and what to change next time. \
Its second picture shows what survives of words that the training pictures do not have.

Other axes: prompt words (search and replace), seed, CFG, steps, sampler, block weights, checkpoint.

---
## 该用哪个文件、多大强度？
点击 **运行**：在 *演示底模* 上训练吉祥物 **zibu** 的 LoRA，然后用七种强度画出每个文件的图。

1. *X/Y/Z 对比图*：横向是文件，纵向是强度；下方是每张图的测量数据。**取消后再次运行：只画缺少的图。**
2. *LoRA 建议* 用文字说明该用哪个文件、多大强度，其他文件有什么问题，下次该改什么。它的第二张图显示训练图片中没有的词还能保留多少作用。

其他可用的轴：提示词（查找替换）、种子、CFG、步数、采样器、分层权重、大模型。
"""
SD15_GRID_NOTE = """\
## Compare LoRA files on your checkpoint
1. Choose the checkpoint. In *X/Y/Z Grid*, **loras** names the files: a pattern such as `my_lora*` takes all files of a run.
2. X: files, Y: strengths, Z: seeds, here two pages. Every picture equals what *Load LoRA* and *KSampler* give, and is saved in \
`output/lora_furnace/grids/my_lora`; drop one onto the canvas to get its graph. \
**After Cancel only what is missing is drawn.**
3. Connect *Dataset Folder* to **dataset** and **held_out** to measure whether pictures were learned by heart.

---
## 在自己的大模型上比较 LoRA 文件
1. 选择大模型。*X/Y/Z 对比图* 的 **LoRA 文件** 可写通配，例如 `my_lora*` 表示一次训练的全部文件。
2. X：文件，Y：强度，Z：种子（两页）。每张图与 *加载 LoRA*、*K 采样器* 的结果相同，保存在 `output/lora_furnace/grids/my_lora`，\
拖到画布即可打开其工作流。**取消后只画缺少的图。**
3. 把 *图片数据集* 连接到 **训练图片** 和 **验证集**，可以测量是否死记硬背。
"""
