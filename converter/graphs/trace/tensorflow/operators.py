"""Which of TensorFlow's operators a graph from a stranger may have: those that only compute.

TensorFlow's SECURITY.md: "TensorFlow models are programs". What is not listed here refuses the graph, wherever in it
or in its functions it stands, before TensorFlow sees a byte of it. Left out, among others: everything that opens files
(ReadFile, WriteFile, ImmutableConst, DecodeProtoV2, InitializeTableFromTextFileV2, datasets, readers, summaries),
writes to where the graph says (Print, PrintV2, DebugIdentity), calls Python (PyFunc, EagerPyFunc), talks to other
machines, or hands over programs of other kinds (XlaLaunch).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from converter.encoding.graph_def import MetaGraph, Node, meta_graphs
from converter.errors import SafetyError

_COMPUTE = """
Abs Acos Acosh Add AddN AddV2 All Angle Any ApproximateEqual ApproxTopK ArgMax ArgMin Asin Asinh Assert Atan Atan2
Atanh Betainc BesselI0 BesselI0e BesselI1 BesselI1e Bincount Bitcast BitwiseAnd BitwiseOr BitwiseXor Bucketize Cast
Ceil CheckNumerics ClipByValue Complex ComplexAbs Conj Cos Cosh Cross Cumprod Cumsum CumulativeLogsumexp DenseBincount
Digamma Div DivNoNan Equal Erf Erfc Erfinv EuclideanNorm Exp Expint Expm1 Floor FloorDiv FloorMod Greater GreaterEqual
HistogramFixedWidth Igamma IgammaGradA Igammac Imag Inv InvGrad Invert IsFinite IsInf IsNan LeftShift Less LessEqual
Lgamma LinSpace Log Log1p LogicalAnd LogicalNot LogicalOr Max Maximum Mean Min Minimum Mod Mul MulNoNan Ndtri Neg
NextAfter NotEqual Polygamma PopulationCount Pow Prod RaggedBincount Range Real RealDiv Reciprocal ReciprocalGrad
RightShift Rint Round Rsqrt RsqrtGrad SegmentMax SegmentMaxV2 SegmentMean SegmentMin SegmentMinV2 SegmentProd
SegmentProdV2 SegmentSum SegmentSumV2 Select SelectV2 Sigmoid SigmoidGrad Sign Sin Sinh Spence Sqrt SqrtGrad Square
SquaredDifference Sub Sum Tan Tanh TanhGrad TruncateDiv TruncateMod UnsortedSegmentMax UnsortedSegmentMin
UnsortedSegmentProd UnsortedSegmentSum Xdivy Xlog1py Xlogy Zeta

BatchToSpace BatchToSpaceND BroadcastArgs BroadcastGradientArgs BroadcastTo Concat ConcatOffset ConcatV2
ConjugateTranspose Const DeepCopy DepthToSpace Dequantize Diag DiagPart DynamicPartition DynamicStitch EditDistance
Empty EnsureShape ExpandDims FakeParam FakeQuantWithMinMaxArgs FakeQuantWithMinMaxArgsGradient FakeQuantWithMinMaxVars
FakeQuantWithMinMaxVarsGradient FakeQuantWithMinMaxVarsPerChannel FakeQuantWithMinMaxVarsPerChannelGradient Fill
Fingerprint Gather GatherNd GatherV2 GuaranteeConst Identity IdentityN InplaceAdd InplaceSub InplaceUpdate
InvertPermutation ListDiff LowerBound MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3
MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad MirrorPadGrad OneHot OnesLike Pack
Pad PadV2 ParallelConcat ParallelDynamicStitch Placeholder PlaceholderV2 PlaceholderWithDefault PreventGradient
QuantizeAndDequantize QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeV2 Rank Reshape
Reverse ReverseSequence ReverseV2 Roll ScatterNd ScatterNdNonAliasingAdd Shape ShapeN Size Slice Snapshot SpaceToBatch
SpaceToBatchND SpaceToDepth Split SplitV Squeeze StopGradient StridedSlice StridedSliceGrad TensorScatterAdd
TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile TileGrad Transpose
Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex UpperBound Where ZerosLike

AvgPool AvgPool3D AvgPool3DGrad AvgPoolGrad BatchNormWithGlobalNormalization BiasAdd BiasAddGrad BiasAddV1
CTCBeamSearchDecoder CTCGreedyDecoder CTCLoss CTCLossV2 Conv Conv2D Conv2DBackpropFilter Conv2DBackpropFilterV2
Conv2DBackpropInput Conv2DBackpropInputV2 Conv3D Conv3DBackpropFilterV2 Conv3DBackpropInputV2 CudnnRNN CudnnRNNV2
CudnnRNNV3 DataFormatDimMap DataFormatVecPermute DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter
DepthwiseConv2dNativeBackpropInput Dilation2D Elu EluGrad FractionalAvgPool FractionalMaxPool FusedBatchNorm
FusedBatchNormGrad FusedBatchNormGradV2 FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 GRUBlockCell InTopK
InTopKV2 L2Loss LRN LRNGrad BlockLSTM BlockLSTMV2 LSTMBlockCell LeakyRelu LeakyReluGrad LogSoftmax MaxPool MaxPool3D
MaxPool3DGrad MaxPoolGrad MaxPoolGradV2 MaxPoolV2 MaxPoolWithArgmax NthElement Relu Relu6 Relu6Grad ReluGrad Selu
SeluGrad Softmax SoftmaxCrossEntropyWithLogits Softplus SoftplusGrad Softsign SoftsignGrad
SparseSoftmaxCrossEntropyWithLogits TopK TopKV2

BandedTriangularSolve BatchCholesky BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchMatrixBandPart BatchMatrixDiag
BatchMatrixDiagPart BatchMatrixInverse Cholesky CholeskyGrad Eig Einsum LogMatrixDeterminant Lu MatMul
MatrixDeterminant MatrixExponential MatrixInverse MatrixLogarithm MatrixSolve MatrixSolveLs MatrixSquareRoot
MatrixTriangularSolve Qr SelfAdjointEig SelfAdjointEigV2 Svd TridiagonalMatMul TridiagonalSolve

FFT FFT2D FFT3D FFTND IFFT IFFT2D IFFT3D IFFTND IRFFT IRFFT2D IRFFT3D IRFFTND RFFT RFFT2D RFFT3D RFFTND
AudioSpectrogram Mfcc

AdjustContrast AdjustContrastv2 AdjustHue AdjustSaturation CombinedNonMaxSuppression CropAndResize DrawBoundingBoxes
DrawBoundingBoxesV2 ExtractGlimpse ExtractGlimpseV2 ExtractImagePatches ExtractVolumePatches
GenerateBoundingBoxProposals HSVToRGB ImageProjectiveTransformV2 ImageProjectiveTransformV3 NonMaxSuppression
NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NonMaxSuppressionWithOverlaps RGBToHSV
ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ResizeBicubicGrad ResizeBilinearGrad
ResizeNearestNeighborGrad ScaleAndTranslate

Multinomial ParameterizedTruncatedNormal RandomGamma RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform
RandomUniformInt RngReadAndSkip RngSkip StatelessMultinomial StatelessParameterizedTruncatedNormal
StatelessRandomBinomial StatelessRandomGammaV2 StatelessRandomGammaV3 StatelessRandomGetAlg
StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
StatelessRandomPoisson StatelessRandomUniform StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2
StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessShuffle
StatelessTruncatedNormal StatelessTruncatedNormalV2 StatefulStandardNormalV2 StatefulTruncatedNormal StatefulUniform
StatefulUniformFullInt StatefulUniformInt TruncatedNormal

Case ControlTrigger Enter Exit For If LoopCond Merge NextIteration NoOp PartitionedCall StatefulPartitionedCall
StatelessCase StatelessIf StatelessWhile Switch While

EmptyTensorList TensorListConcat TensorListConcatLists TensorListConcatV2 TensorListElementShape TensorListFromTensor
TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack TensorListPushBackBatch
TensorListReserve TensorListResize TensorListScatter TensorListScatterIntoExistingList TensorListScatterV2
TensorListSetItem TensorListSplit TensorListStack TensorArrayCloseV3 TensorArrayConcatV3 TensorArrayGatherV3
TensorArrayReadV3 TensorArrayScatterV3 TensorArraySizeV3 TensorArraySplitV3 TensorArrayV3 TensorArrayWriteV3

DeserializeSparse RaggedCross RaggedFillEmptyRows RaggedGather RaggedRange RaggedTensorFromVariant RaggedTensorToSparse
RaggedTensorToTensor RaggedTensorToVariant SparseAdd SparseBincount SparseConcat SparseCross SparseCrossV2
SparseFillEmptyRows SparseFillEmptyRowsGrad SparseReduceMax SparseReduceSum SparseReorder SparseReshape
SparseSegmentMean SparseSegmentMeanWithNumSegments SparseSegmentSqrtN SparseSegmentSqrtNWithNumSegments
SparseSegmentSum SparseSegmentSumWithNumSegments SparseSlice SparseSoftmax SparseSplit SparseTensorDenseMatMul
SparseToDense

Assign AssignAdd AssignAddVariableOp AssignSub AssignSubVariableOp AssignVariableOp DestroyResourceOp DisableCopyOnRead
IsVariableInitialized ReadVariableOp ResourceGather ResourceGatherNd ResourceScatterAdd ResourceScatterMax
ResourceScatterMin ResourceScatterMul ResourceScatterNdAdd ResourceScatterNdSub ResourceScatterNdUpdate
ResourceScatterSub ResourceScatterUpdate ResourceStridedSliceAssign ScatterAdd ScatterNdAdd ScatterNdUpdate ScatterSub
ScatterUpdate StridedSliceAssign VarHandleOp VarIsInitializedOp Variable VariableShape VariableV2 ApplyAdam
ApplyGradientDescent ApplyMomentum ResourceApplyAdaMax ResourceApplyAdadelta ResourceApplyAdagrad
ResourceApplyAdagradV2 ResourceApplyAdam ResourceApplyAdamWithAmsgrad ResourceApplyCenteredRMSProp ResourceApplyFtrl
ResourceApplyFtrlV2 ResourceApplyGradientDescent ResourceApplyKerasMomentum ResourceApplyMomentum ResourceApplyRMSProp
ResourceSparseApplyAdagrad ResourceSparseApplyAdagradV2 ResourceSparseApplyFtrl ResourceSparseApplyKerasMomentum
ResourceSparseApplyMomentum ResourceSparseApplyRMSProp

AnonymousHashTable HashTable HashTableV2 InitializeTable InitializeTableV2 LookupTableExportV2 LookupTableFind
LookupTableFindV2 LookupTableImportV2 LookupTableInsertV2 LookupTableRemoveV2 LookupTableSize LookupTableSizeV2
MutableDenseHashTableV2 MutableHashTable MutableHashTableV2

AsString DecodeBase64 EncodeBase64 ReduceJoin RegexFullMatch RegexReplace StaticRegexFullMatch StaticRegexReplace
StringFormat StringJoin StringLength StringLower StringNGrams StringSplit StringSplitV2 StringStrip StringToHashBucket
StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper Substr UnicodeDecode
UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode UnsortedSegmentJoin
"""
_SAVER = "MergeV2Checkpoints Restore RestoreSlice RestoreV2 Save SaveSlices SaveV2 ShardedFilename ShardedFilespec"
COMPUTE = frozenset(_COMPUTE.split())
SAVER = frozenset(_SAVER.split())
"""What the functions that every SavedModel has for saving and restoring its variables are made of."""


def check(data: bytes, path: str | None = None) -> None:
    """Raise SafetyError for the first operator in a `saved_model.pb` that is not known to compute and nothing else.

    The operators that read and write checkpoints are taken where nothing but the graph's own saver leads to them: no
    signature, no initialiser, no other node. Raises ReadError when the file is malformed.
    """
    for graph in meta_graphs(data, path):
        _check_graph(graph, path)


def _check_graph(graph: MetaGraph, path: str | None) -> None:
    saving = _reached(graph, graph.savers, ())
    shown = [name for name in graph.nodes if name not in saving.nodes]
    shown += [*graph.listed, *(name for names in graph.signatures.values() for name in names)]
    others = _reached(graph, shown, [name for name in graph.functions if name not in saving.functions])
    for node in graph.nodes.values():
        _check(node, graph.functions, is_saver=node.name not in others.nodes, where=None, path=path)
    for name, nodes in graph.functions.items():
        for node in nodes:
            _check(node, graph.functions, is_saver=name not in others.functions, where=name, path=path)


class _Reached:
    """Nodes of the main graph and functions of the library that running something would run."""

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.functions: set[str] = set()


def _reached(graph: MetaGraph, nodes: Iterable[str], functions: Iterable[str]) -> _Reached:
    reached = _Reached()
    waiting = [name for name in nodes if name in graph.nodes]
    called = list(functions)
    while waiting or called:
        if waiting:
            name = waiting.pop()
            if name not in reached.nodes:
                reached.nodes.add(name)
                node = graph.nodes[name]
                waiting += [each for each in node.inputs if each in graph.nodes]
                called += _callees(node, graph.functions)
        else:
            name = called.pop()
            if name not in reached.functions:
                reached.functions.add(name)
                called += [each for node in graph.functions[name] for each in _callees(node, graph.functions)]
    return reached


def _callees(node: Node, functions: Mapping[str, tuple[Node, ...]]) -> list[str]:
    """The functions that a node names; an operator may itself be the name of a function."""
    return [name for name in (*node.calls, node.operator) if name in functions]


def _check(node: Node, functions: Mapping[str, object], *, is_saver: bool, where: str | None, path: str | None) -> None:
    if node.operator in COMPUTE or (is_saver and node.operator in SAVER):
        return
    if node.operator in functions and "_" in node.operator[1:]:  # no operator of TensorFlow's own is called so
        return
    place = f"node {node.name!r}" if where is None else f"node {node.name!r} of function {where!r}"
    raise SafetyError(f"has the operator {node.operator} ({place}), which is not known to compute alone", path=path)
