package csi

import (
	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// withoutSecrets is a request for the log: every field that the CSI
// specification marks as secret is taken out, at any depth.
func withoutSecrets(m proto.Message) string {
	m = proto.Clone(m)
	clearSecrets(m.ProtoReflect())
	return protojson.Format(m)
}

func clearSecrets(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case isSecret(field):
			m.Clear(field)
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				clearSecrets(value.List().Get(i).Message())
			}
		case field.Message() != nil && !field.IsMap():
			clearSecrets(value.Message())
		}
		return true
	})
}

func isSecret(field protoreflect.FieldDescriptor) bool {
	secret, _ := proto.GetExtension(field.Options(), spec.E_CsiSecret).(bool)
	return secret
}
