package cpu

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapeinference"
)

// capabilities lists what the backend implements. Operations that are not
// listed return an error that wraps compute.ErrNotImplemented.
var capabilities = compute.Capabilities{
	Functions:   true,
	DynamicAxes: true,
	Operations:  supportedOps(),
	DTypes: map[dtypes.DType]bool{
		dtypes.Bool: true,
		dtypes.Int2: true, dtypes.Int4: true, dtypes.Int8: true, dtypes.Int16: true, dtypes.Int32: true, dtypes.Int64: true,
		dtypes.Uint2: true, dtypes.Uint4: true, dtypes.Uint8: true, dtypes.Uint16: true, dtypes.Uint32: true, dtypes.Uint64: true,
		dtypes.Float16: true, dtypes.BFloat16: true, dtypes.Float32: true, dtypes.Float64: true,
	},
}

func supportedOps() map[compute.OpType]bool {
	ops := map[compute.OpType]bool{}
	for op := range shapeinference.StandardUnaryOperations {
		ops[op] = true
	}
	for op := range shapeinference.AllBinaryOperations {
		ops[op] = true
	}
	for _, op := range []compute.OpType{compute.OpTypeImag, compute.OpTypeReal, compute.OpTypeConj} {
		delete(ops, op) // complex numbers
	}
	for _, op := range []compute.OpType{
		compute.OpTypeParameter, compute.OpTypeConstant, compute.OpTypeIdentity, compute.OpTypeIota,
		compute.OpTypeIsFinite, compute.OpTypeIsNaN, compute.OpTypeClamp, compute.OpTypeWhere,
		compute.OpTypeConvertDType, compute.OpTypeBitcast,
		compute.OpTypeReshape, compute.OpTypeTranspose, compute.OpTypeBroadcastInDim, compute.OpTypeSlice,
		compute.OpTypeReverse, compute.OpTypePad, compute.OpTypeConcatenate,
		compute.OpTypeDynamicDimensionSize, compute.OpTypeDynamicShape, compute.OpTypeDynamicReshape,
		compute.OpTypeDynamicSlice, compute.OpTypeDynamicUpdateSlice,
		compute.OpTypeReduceSum, compute.OpTypeReduceProduct, compute.OpTypeReduceMax, compute.OpTypeReduceMin,
		compute.OpTypeReduceBitwiseAnd, compute.OpTypeReduceBitwiseOr, compute.OpTypeReduceBitwiseXor,
		compute.OpTypeReduceLogicalAnd, compute.OpTypeReduceLogicalOr, compute.OpTypeReduceLogicalXor,
		compute.OpTypeReduceWindow, compute.OpTypeSelectAndScatterMax, compute.OpTypeSelectAndScatterMin,
		compute.OpTypeArgMinMax, compute.OpTypeGather,
		compute.OpTypeScatterSum, compute.OpTypeScatterMax, compute.OpTypeScatterMin,
		compute.OpTypeDot, compute.OpTypeDotGeneral, compute.OpTypeConvGeneral,
		compute.OpTypeBatchNormForTraining, compute.OpTypeBatchNormForInference, compute.OpTypeBatchNormGradient,
		compute.OpTypeRNGBitGenerator, compute.OpTypeSort, compute.OpTypeWhile, compute.OpTypeIf, compute.OpTypeCall,
		compute.OpTypeOptimizationBarrier, compute.OpTypeSchedulingBarrier,
		compute.OpTypeFusedSoftmax, compute.OpTypeFusedGelu, compute.OpTypeFusedLayerNorm,
		compute.OpTypeFusedDense, compute.OpTypeFusedAttentionQKVProjection,
		compute.OpTypeFusedQuantizedDense, compute.OpTypeQuantizedEmbeddingLookup,
	} {
		ops[op] = true
	}
	return ops
}

func flatOfHalf(flat any) (dtypes.DType, int) {
	switch s := flat.(type) {
	case []float16.Float16:
		return dtypes.Float16, len(s)
	case []bfloat16.BFloat16:
		return dtypes.BFloat16, len(s)
	}
	return dtypes.InvalidDType, 0
}
