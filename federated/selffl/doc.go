// Package selffl is Self-FL: personal federated learning in which measured uncertainty decides how much every client leans on
// the others (Chen, Ding, Tramel, Wu, Sahu, Avestimehr, Zhang, "Self-Aware Personalized Federated Learning", NeurIPS 2022,
// arXiv 2204.08069).
package selffl
