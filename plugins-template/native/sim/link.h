// The wire between simulated devices: groups of one process that were opened with the same group id meet here.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tenon/status.h"

namespace sim {

// What each rank brought to one exchange, by rank.
struct Round {
  std::vector<std::vector<uint8_t>> data;
  size_t arrived = 0;
};

class Link {
 public:
  explicit Link(int num_ranks) : num_calls_(static_cast<size_t>(num_ranks), kNotHere) {}

  // The link of a group; config.invalid-option where the rank is taken or the group has another size.
  static tenon::Status Join(const std::string& group_id, int rank, int num_ranks, std::shared_ptr<Link>* link) {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<Link>> links;
    const std::lock_guard lock(mutex);
    *link = links[group_id].lock();
    if (*link == nullptr) links[group_id] = *link = std::make_shared<Link>(num_ranks);
    std::vector<int64_t>& num_calls = (*link)->num_calls_;
    const std::lock_guard link_lock((*link)->mutex_);
    if (num_calls.size() != static_cast<size_t>(num_ranks) || num_calls[static_cast<size_t>(rank)] != kNotHere)
      return tenon::Status::Error(tenon::StatusCode::kInvalidOption, "rank %d of %d in group '%s': it is there already, or the group has %zu ranks",
                                  rank, num_ranks, group_id.c_str(), num_calls.size());
    num_calls[static_cast<size_t>(rank)] = 0;
    return tenon::Status::Ok();
  }

  // The n-th call of a rank meets the n-th calls of the others and returns when all have come; device-lost where that takes longer
  // than `timeout`, or `stop` says so.
  tenon::Status Exchange(int rank, const uint8_t* data, size_t bytes, std::chrono::milliseconds timeout,
                         const std::function<bool()>& stop, std::shared_ptr<Round>* round) {
    std::unique_lock lock(mutex_);
    const size_t num_ranks = num_calls_.size();
    const int64_t number = num_calls_[static_cast<size_t>(rank)]++;
    std::shared_ptr<Round>& open = rounds_[number];
    if (open == nullptr) open = std::make_shared<Round>(Round{std::vector<std::vector<uint8_t>>(num_ranks)});
    *round = open;
    (*round)->data[static_cast<size_t>(rank)].assign(data, data + bytes);
    if (++(*round)->arrived == num_ranks) rounds_.erase(number);
    arrival_.notify_all();
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    while ((*round)->arrived < num_ranks) {
      if (stop() || std::chrono::steady_clock::now() > deadline)
        return tenon::Status::Error(tenon::StatusCode::kDeviceLost, "rank %d waited %lld ms in a collective; %zu of %zu ranks came",
                                    rank, static_cast<long long>(timeout.count()), (*round)->arrived, num_ranks);
      arrival_.wait_for(lock, std::chrono::milliseconds(5));
    }
    return tenon::Status::Ok();
  }

 private:
  static constexpr int64_t kNotHere = -1;
  std::mutex mutex_;
  std::condition_variable arrival_;
  std::vector<int64_t> num_calls_;  // of each rank
  std::map<int64_t, std::shared_ptr<Round>> rounds_;  // that lack a rank
};

}  // namespace sim
