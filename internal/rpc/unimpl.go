package rpc

import api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"

type stubs struct {
	api.UnimplementedJobServiceHandler
	api.UnimplementedTaskServiceHandler
	api.UnimplementedMachineServiceHandler
	api.UnimplementedUsageServiceHandler
	api.UnimplementedClusterServiceHandler
}
