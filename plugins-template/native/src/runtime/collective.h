// The SDK's collectives over the link of a group of simulated devices. Like kernels they are enqueued: ranks meet on their streams,
// and no thread of the host waits.
#pragma once

#include "collectives.h"
#include "launch.h"
#include "link.h"

namespace tenon_backend_template {

class SimCollective final : public tenon::Collective {
 public:
  SimCollective(std::shared_ptr<sim::Link> link, int rank, int size, std::chrono::milliseconds timeout)
      : link_(std::move(link)), rank_(rank), size_(size), timeout_(timeout) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  tenon::Status AllReduce(const tenon::CollectiveParams& params, tenon::Stream stream) override {
    return Enqueue("all_reduce", params, params.cols, stream, [](const auto& p, const auto& x, const Floats& y) {
      kernels::SumOfRanks(x, p.rows, p.cols, 0, p.cols, y);
    });
  }
  tenon::Status AllGather(const tenon::CollectiveParams& params, tenon::Stream stream) override {
    return Enqueue("all_gather", params, params.cols * size_, stream, [](const auto& p, const auto& x, const Floats& y) {
      kernels::ConcatRanks(x, p.rows, p.cols, y);
    });
  }
  tenon::Status ReduceScatter(const tenon::CollectiveParams& params, tenon::Stream stream) override {
    const int64_t cols = params.cols / size_, first = rank_ * cols;
    return Enqueue("reduce_scatter", params, cols, stream, [first, cols](const auto& p, const auto& x, const Floats& y) {
      kernels::SumOfRanks(x, p.rows, p.cols, first, cols, y);
    });
  }

 private:
  // combine(params, what each rank brought, y) on the device, once all ranks have come to this call.
  template <typename Combine>
  tenon::Status Enqueue(const char* name, const tenon::CollectiveParams& params, int64_t y_cols, tenon::Stream stream,
                        Combine combine) {
    auto& launcher = *static_cast<Launcher*>(stream.handle);
    Launch launch(launcher, name);
    tenon::CollectiveParams p = params;
    launch.In(p.src, p.rows * p.cols, p.dtype);
    launch.Out(p.dst, p.rows * y_cols, p.dtype);
    return launch.Run([this, p, combine, &stream = launcher.stream] {
      std::shared_ptr<sim::Round> round;
      const auto bytes = static_cast<size_t>(p.rows * p.cols * tenon::kDtypeBytes[static_cast<int32_t>(p.dtype)]);
      const auto stop = [&stream] { return stream.cancelled(); };
      TENON_RETURN_IF_ERROR(link_->Exchange(rank_, static_cast<const uint8_t*>(p.src), bytes, timeout_, stop, &round));
      std::vector<Floats> of_ranks;
      for (const std::vector<uint8_t>& data : round->data) of_ranks.push_back(In(data.data(), p.dtype));
      combine(p, of_ranks, Floats{p.dst, p.dtype});
      return tenon::Status::Ok();
    });
  }

  const std::shared_ptr<sim::Link> link_;
  const int rank_, size_;
  const std::chrono::milliseconds timeout_;
};

}  // namespace tenon_backend_template
