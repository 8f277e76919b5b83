"""How clients ask and are answered: V1, V2 by REST and by gRPC, CloudEvents; their tensors and their JSON."""
