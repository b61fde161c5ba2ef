// A photo to named blendshapes and a mesh, with a bundle of `keras-scnn export PRESET --to bundle`.
// All numbers are read from bundle.json. C++17, LiteRT 2 and nlohmann/json 3; photos are binary PPM
// (P6), since there is no image decoder here: use your app's decoder.
//
//     g++ -std=c++17 -O2 face.cc libLiteRt.so -o face
//     ./face BUNDLE photo.ppm face.obj > face.json
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "litert_c.h"

using Json = nlohmann::json;
using Point = std::array<double, 3>;
using Floats = std::vector<float>;
using Outputs = std::map<std::string, Floats>;

struct Photo {
  int width, height;
  std::vector<uint8_t> rgb;
};
// A square: center in box coordinates (pixel edges at integers), clockwise angle in radians; `across` is -1 for a mirrored crop.
struct Box {
  double x, y, side, angle, across = 1;
};
struct Found {  // a detection: center, size, and the six keypoints, box coordinates
  double x, y, width, height, score;
  std::vector<Point> points;
};
struct Face {
  Box box;
  std::vector<Point> landmarks, vertices;  // px of the photo; mm
  std::array<std::array<double, 4>, 3> pose;  // photo from model
  std::map<std::string, float> blendshapes;
};

void check(LiteRtStatus status, const std::string& what) {
  if (status) throw std::runtime_error(what + ": LiteRT status " + std::to_string(status));
}

// A .tflite file with one input; its outputs by name.
class Network {
 public:
  explicit Network(const std::string& path) {
    check(LiteRtCreateEnvironment(0, nullptr, &environment_), path);
    check(LiteRtCreateModelFromFile(environment_, path.c_str(), &model_), path);
    check(LiteRtCreateOptions(&options_), path);
    check(LiteRtSetOptionsHardwareAccelerators(options_, kLiteRtHwAcceleratorCpu), path);
    check(LiteRtCreateCompiledModel(environment_, model_, options_, &compiled_), path);
    LiteRtSignature signature;
    check(LiteRtGetModelSignature(model_, 0, &signature), path);
    LiteRtTensor tensor;
    LiteRtTensorBufferRequirements needs;
    check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor), path);
    check(LiteRtGetCompiledModelInputBufferRequirements(compiled_, 0, 0, &needs), path);
    input_ = buffer(tensor, needs);
    size_t count;
    check(LiteRtGetNumSignatureOutputs(signature, &count), path);
    for (size_t i = 0; i < count; i++) {
      const char* name;
      check(LiteRtGetSignatureOutputName(signature, i, &name), path);
      check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor), path);
      check(LiteRtGetCompiledModelOutputBufferRequirements(compiled_, 0, i, &needs), path);
      outputs_.push_back(buffer(tensor, needs));
      names_.push_back(name);
    }
  }
  Network(const Network&) = delete;
  ~Network() {
    for (auto output : outputs_) LiteRtDestroyTensorBuffer(output);
    if (input_) LiteRtDestroyTensorBuffer(input_);
    if (compiled_) LiteRtDestroyCompiledModel(compiled_);
    if (options_) LiteRtDestroyOptions(options_);
    if (model_) LiteRtDestroyModel(model_);
    if (environment_) LiteRtDestroyEnvironment(environment_);
  }

  template <typename T>
  Outputs operator()(const std::vector<T>& values) {
    copy(input_, [&](void* memory, size_t bytes) {
      if (bytes != sizeof(T) * values.size()) throw std::runtime_error("the input has the wrong size");
      std::memcpy(memory, values.data(), bytes);
    }, kLiteRtTensorBufferLockModeWrite);
    check(LiteRtRunCompiledModel(compiled_, 0, 1, &input_, outputs_.size(), outputs_.data()), "run");
    Outputs found;
    for (size_t i = 0; i < outputs_.size(); i++)
      copy(outputs_[i], [&](void* memory, size_t bytes) {
        auto* first = static_cast<float*>(memory);
        found[names_[i]] = Floats(first, first + bytes / sizeof(float));
      }, kLiteRtTensorBufferLockModeRead);
    return found;
  }

 private:
  LiteRtTensorBuffer buffer(LiteRtTensor tensor, LiteRtTensorBufferRequirements needs) {
    LiteRtRankedTensorType type;
    LiteRtTensorBuffer made;
    check(LiteRtGetRankedTensorType(tensor, &type), "type");
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type, needs, &made), "buffer");
    return made;
  }
  template <typename F>
  void copy(LiteRtTensorBuffer buffer, F use, int mode) {
    size_t bytes;
    void* memory;
    check(LiteRtGetTensorBufferPackedSize(buffer, &bytes), "size");
    check(LiteRtLockTensorBuffer(buffer, &memory, mode), "lock");
    use(memory, bytes);
    check(LiteRtUnlockTensorBuffer(buffer), "unlock");
  }
  LiteRtEnvironment environment_ = nullptr;
  LiteRtModel model_ = nullptr;
  LiteRtOptions options_ = nullptr;
  LiteRtCompiledModel compiled_ = nullptr;
  LiteRtTensorBuffer input_ = nullptr;
  std::vector<LiteRtTensorBuffer> outputs_;
  std::vector<std::string> names_;
};

// A rotated square of a photo as size x size x 3 numbers, 0 to 255; see `text` of bundle.json's crop.
std::vector<uint8_t> cut(const Photo& photo, const Box& box, int size) {
  const int block = std::max(1, int(std::nearbyint(box.side / size)));  // half to even
  const double cos = std::cos(box.angle), sin = std::sin(box.angle);
  const double reach = box.side * (std::abs(cos) + std::abs(sin)) / 2;
  auto range = [&](double center, int limit) {
    int low = std::clamp(int(std::floor(center - reach)) - 2 * block, 0, limit - 1);
    int high = std::clamp(int(std::ceil(center + reach)) + 2 * block, low + 1, limit);
    return std::array<int, 2>{low, high};
  };
  const auto [left, right] = range(box.x, photo.width);
  const auto [top, bottom] = range(box.y, photo.height);
  const int columns = (right - left + block - 1) / block, lines = (bottom - top + block - 1) / block;
  std::vector<uint8_t> means(size_t(columns) * lines * 3);
  for (size_t at = 0; at < means.size(); at++) {
    const int channel = at % 3, column = at / 3 % columns, line = at / 3 / columns;
    double sum = 0;
    for (int j = 0; j < block; j++)
      for (int i = 0; i < block; i++) {
        const size_t y = std::min(top + line * block + j, bottom - 1);
        sum += photo.rgb[3 * (y * photo.width + std::min(left + column * block + i, right - 1)) + channel];
      }
    const double mean = sum / (block * block);
    means[at] = uint8_t(block == 2 ? std::floor(mean + 0.5) : std::nearbyint(mean));
  }
  auto read = [&](int column, int line, int channel) -> double {
    if (column < 0 || line < 0 || column >= columns || line >= lines) return 0;
    return means[3 * (size_t(line) * columns + column) + channel];
  };
  std::vector<uint8_t> crop(size_t(size) * size * 3);
  for (size_t at = 0; at < crop.size(); at++) {
    const int channel = at % 3, u = at / 3 % size, v = at / 3 / size;
    const double dx = box.across * ((u + 0.5) / size - 0.5) * box.side, dy = ((v + 0.5) / size - 0.5) * box.side;
    const double px = (box.x + cos * dx - sin * dy - left) / block - 0.5;
    const double py = (box.y + sin * dx + cos * dy - top) / block - 0.5;
    const int column = int(std::floor(px)), line = int(std::floor(py));
    const double a = px - column, b = py - line;
    const double upper = read(column, line, channel) * (1 - a) + read(column + 1, line, channel) * a;
    const double lower = read(column, line + 1, channel) * (1 - a) + read(column + 1, line + 1, channel) * a;
    crop[at] = uint8_t(std::nearbyint(upper * (1 - b) + lower * b));
  }
  return crop;
}

// The photo halved until it is below `limit` px or a side is odd, and the factor 1, 2, 4, ...
std::pair<Photo, int> halved(Photo photo, int limit) {
  int factor = 1;
  for (; std::max(photo.width, photo.height) >= limit && photo.width % 2 == 0 && photo.height % 2 == 0; factor *= 2) {
    Photo half{photo.width / 2, photo.height / 2, {}};
    for (int at = 0; at < 3 * half.width * half.height; at++) {
      const size_t channel = at % 3, x = at / 3 % half.width, y = at / 3 / half.width;
      const uint8_t* first = &photo.rgb[3 * (2 * y * photo.width + 2 * x) + channel];
      const uint8_t* below = first + 3 * photo.width;
      half.rgb.push_back((first[0] + first[3] + below[0] + below[3] + 2) / 4);
    }
    photo = std::move(half);
  }
  return {std::move(photo), factor};
}

double shared(const Found& a, const Found& b) {
  auto along = [](double x, double width, double other, double length) {
    return std::max(0.0, std::min(x + width / 2, other + length / 2) - std::max(x - width / 2, other - length / 2));
  };
  return along(a.x, a.width, b.x, b.width) * along(a.y, a.height, b.y, b.height);
}

double overlap(const Found& a, const Found& b) {
  const double both = shared(a, b);
  return both / std::max(a.width * a.height + b.width * b.height - both, 1e-12);
}

void by_score(std::vector<Found>& found) {
  std::stable_sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.score > b.score; });
}

// Weighted non-maximum suppression: one box per face, highest score first.
std::vector<Found> suppress(std::vector<Found> left, double same_face) {
  by_score(left);
  std::vector<Found> faces;
  while (!left.empty()) {
    const Found best = left.front();
    auto is_same = [&](const Found& other) { return &other == &left.front() || overlap(best, other) > same_face; };
    std::vector<Found> same, others;
    for (const Found& each : left) (is_same(each) ? same : others).push_back(each);
    double total = 0;
    for (const Found& each : same) total += each.score;
    Found mean{0, 0, 0, 0, best.score, std::vector<Point>(best.points.size(), Point{})};
    for (const Found& each : same) {
      const double weight = each.score / total;
      mean.x += weight * each.x, mean.y += weight * each.y;
      mean.width += weight * each.width, mean.height += weight * each.height;
      for (size_t i = 0; i < each.points.size(); i++)
        for (int axis : {0, 1}) mean.points[i][axis] += weight * each.points[i][axis];
    }
    faces.push_back(mean);
    left = others;
  }
  return faces;
}

// Keep the highest-scoring of nested faces; sorted by score.
std::vector<Found> without_nested(std::vector<Found> faces, double share) {
  by_score(faces);
  std::vector<Found> kept;
  for (const Found& face : faces)
    if (std::none_of(kept.begin(), kept.end(), [&](const Found& other) {
          return shared(face, other) > share * std::min(face.width * face.height, other.width * other.height);
        }))
      kept.push_back(face);
  return kept;
}

// Clockwise angle, radians, of a head on its side or upside down, otherwise 0.
double turn_of(const std::vector<Point>& points, double min_turn) {
  const double x = (points[0][0] + points[1][0]) / 2 - points[3][0];
  const double y = points[3][1] - (points[0][1] + points[1][1]) / 2;
  const double angle = std::atan2(x, y);
  return std::abs(angle) >= min_turn ? angle : 0;
}

class Detector {
 public:
  Detector(const Json& bundle, Network& network, Network& check, const Photo& photo)
      : rule_(bundle.at("detector")), crop_(bundle.at("crop")), search_(rule_.at("search")), check_rule_(bundle.at("check")),
        network_(network), check_(check), photo_(photo) {
    size_ = rule_["input"]["shape"][0];
    same_face_ = rule_["nms"]["same_face_iou"];
    std::tie(small_, factor_) = halved(photo, search_["halve_from"].get<int>() * size_);
    for (const Json& layer : rule_["anchors"]["layers"]) {
      const int stride = layer["stride"], cells = size_ / stride;
      for (int i = 0; i < cells * cells * layer["per_cell"].get<int>(); i++) {
        const int cell = i / layer["per_cell"].get<int>();
        anchors_.push_back({(cell % cells + 0.5) * stride, (cell / cells + 0.5) * stride});
      }
    }
  }

  // The network's crop for the largest face.
  std::optional<Box> largest() {
    std::optional<Box> best;
    for (const Found& face : faces()) {
      const double side = (face.width + face.height) / 2, angle = turn_of(face.points, crop_["min_turn"]);
      const double down = crop_["detector_shift"].get<double>() * side;
      const Box box{face.x - down * std::sin(angle), face.y + down * std::cos(angle),
                    crop_["detector_scale"].get<double>() * side, angle};
      if (!best || box.side > best->side) best = box;
    }
    return best;
  }

 private:
  std::vector<Found> faces() {
    const auto candidates = around(1, 0), whole = suppress(candidates, same_face_);
    if (is_clear(whole)) return whole;
    const auto found = confirmed(candidates, 0, search_["min_score"]);
    for (bool is_sure : {true, false}) {  // if no face is confirmed, use unconfirmed ones
      auto faces = checked(found, is_sure);
      if (faces.empty()) faces = turned(is_sure);
      if (!faces.empty()) return faces;
    }
    return {};
  }
  // Faces in the rotated photo, for the rotation with the highest score.
  std::vector<Found> turned(bool is_sure) {
    std::vector<Found> best;
    for (double angle : search_["quarters"]) {
      auto faces = checked(confirmed(around(1, angle), angle, search_["turned_min_score"]), is_sure);
      if (!faces.empty() && (best.empty() || faces[0].score > best[0].score)) best = faces;
    }
    return best;
  }
  bool is_clear(const std::vector<Found>& found) {
    if (found.size() != 1 || found[0].score < search_["clear_score"]) return false;
    const double share = found[0].width / std::max(photo_.width, photo_.height);
    const auto& range = search_["clear_share"];
    return share >= range[0] && share <= range[1] && upright(found[0]).score == found[0].score &&
           is_face(found[0]);
  }
  std::vector<Found> around(double zoom, double angle) {
    const double side = zoom * std::max(photo_.width, photo_.height);
    return detect({photo_.width / 2.0, photo_.height / 2.0, side, angle}, true);
  }
  std::optional<Found> again(const Found& face, double angle) { return again(face, angle, search_["second_look"]); }
  std::optional<Found> again(const Found& face, double angle, double zoom) {
    const double side = zoom * std::max(face.width, face.height);
    for (const Found& seen : suppress(detect({face.x, face.y, side, angle}, false), same_face_))
      if (overlap(face, seen) > same_face_) return seen;
    return {};
  }
  // Candidates from the whole photo, and from the photo with a margin, detected again at their best size.
  std::vector<Found> confirmed(std::vector<Found> found, double angle, double least) {
    for (const Found& each : around(search_["margin"], angle)) found.push_back(each);
    std::vector<Found> faces;
    for (const Found& candidate : suppress(found, same_face_)) {
      const auto seen = again(candidate, angle);
      if (seen && seen->score >= least) faces.push_back(*seen);
      else if (candidate.score >= least) faces.push_back(candidate);
    }
    return faces;
  }
  Found upright(const Found& face) {
    if (face.score >= search_["sure_score"]) return face;
    Found best = face;
    double least = face.score + search_["turn_margin"].get<double>();
    for (double angle : search_["quarters"]) {
      const auto seen = again(face, angle);
      if (seen && seen->score > least && turn_of(seen->points, crop_["min_turn"]) != 0)
        best = *seen, least = seen->score;
    }
    return best;
  }
  bool is_face(const Found& face) {
    if (face.score >= search_["sure_score"]) return true;
    const Point &left = face.points[0], &right = face.points[1];
    const double side = check_rule_["crop_scale"].get<double>() * std::max(face.width, face.height);
    const Box box{face.x, face.y, side, std::atan2(right[1] - left[1], right[0] - left[0])};
    const Json& input = check_rule_["input"];
    const float logit = check_(scaled(cut(photo_, box, input["shape"][0]), input)).at(check_rule_["score"])[0];
    if (1 / (1 + std::exp(-double(logit))) >= check_rule_["min_score"]) return true;
    const auto afar = again(face, turn_of(face.points, crop_["min_turn"]), check_rule_["afar"]);
    return afar && afar->score >= check_rule_["min_afar_score"];
  }
  std::vector<Found> checked(const std::vector<Found>& candidates, bool is_sure) {
    std::vector<Found> faces;
    for (const Found& candidate : candidates) {
      const Found face = upright(candidate);
      if (!is_sure || is_face(face)) faces.push_back(face);
    }
    return without_nested(faces, rule_["nms"]["nested_share"]);
  }
  std::vector<Found> detect(const Box& box, bool is_whole) {
    const double factor = is_whole ? factor_ : 1;
    const auto crop = cut(is_whole ? small_ : photo_, {box.x / factor, box.y / factor, box.side / factor, box.angle}, size_);
    const Outputs outputs = network_(scaled(crop, rule_["input"]));
    const Floats &logits = outputs.at("classificators"), &regressors = outputs.at("regressors");
    const double cos = std::cos(box.angle), sin = std::sin(box.angle), zoom = box.side / size_;
    std::vector<Found> found;
    for (size_t i = 0; i < anchors_.size(); i++) {
      const double score = 1 / (1 + std::exp(-double(logits[i])));
      if (score < rule_["decode"]["candidate_score"]) continue;
      const float* numbers = &regressors[16 * i];
      auto place = [&](const float* pair) {
        const double u = (anchors_[i][0] + pair[0] - size_ / 2.0) * zoom, v = (anchors_[i][1] + pair[1] - size_ / 2.0) * zoom;
        return Point{box.x + cos * u - sin * v, box.y + sin * u + cos * v, 0};
      };
      const Point center = place(numbers);
      Found face{center[0], center[1], numbers[2] * zoom, numbers[3] * zoom, score, {}};
      for (int k = 4; k < 16; k += 2) face.points.push_back(place(numbers + k));
      found.push_back(face);
    }
    return found;
  }
  static Floats scaled(const std::vector<uint8_t>& crop, const Json& input) {
    const double multiply = input["multiply"], add = input["add"];
    Floats values;
    for (uint8_t value : crop) values.push_back(float(value * multiply + add));
    return values;
  }

  const Json &rule_, &crop_, &search_, &check_rule_;
  Network &network_, &check_;
  const Photo& photo_;
  Photo small_;
  int factor_, size_;
  double same_face_;
  std::vector<std::array<double, 2>> anchors_;
};

// The square around points (px), with their bounding box's diagonal as its side, rotated by `angle`.
Box square_around(const std::vector<Point>& points, double angle) {
  const double cos = std::cos(angle), sin = std::sin(angle);
  double low[2] = {1e30, 1e30}, high[2] = {-1e30, -1e30};
  for (const Point& point : points) {
    const double upright[2] = {cos * point[0] + sin * point[1], cos * point[1] - sin * point[0]};
    for (int axis : {0, 1}) {
      low[axis] = std::min(low[axis], upright[axis]);
      high[axis] = std::max(high[axis], upright[axis]);
    }
  }
  const double u = (low[0] + high[0]) / 2, v = (low[1] + high[1]) / 2;
  return {cos * u - sin * v + 0.5, sin * u + cos * v + 0.5, std::hypot(high[0] - low[0], high[1] - low[1]), angle};
}

std::vector<Point> points_of(const Floats& numbers) {
  std::vector<Point> points;
  for (size_t i = 0; i < numbers.size(); i += 3) points.push_back({numbers[i], numbers[i + 1], numbers[i + 2]});
  return points;
}

// Run the network on a crop; landmarks and pose are in px of the photo, vertices in mm.
Face look(const Json& bundle, Network& network, const Photo& photo, const Box& box) {
  const int size = bundle.at("crop").at("size");
  const Outputs outputs = network(cut(photo, box, size));
  const double scale = box.side / size, cos = std::cos(box.angle), sin = std::sin(box.angle);
  auto to_photo = [&](const Point& p, int is_point) {
    const double x = box.across * scale * (p[0] + is_point * (0.5 - size / 2.0)), y = scale * (p[1] + is_point * (0.5 - size / 2.0));
    return Point{is_point * (box.x - 0.5) + cos * x - sin * y, is_point * (box.y - 0.5) + sin * x + cos * y, scale * p[2]};
  };
  Face face{box, points_of(outputs.at("landmarks")), points_of(outputs.at(bundle.at("mesh").at("vertices").at("output"))), {}, {}};
  for (Point& point : face.landmarks) point = to_photo(point, 1);
  const Floats& parameters = outputs.at("parameters");
  for (int column = 0; column < 4; column++) {
    const Point moved = to_photo({parameters[column], parameters[4 + column], parameters[8 + column]}, column == 3);
    for (int row = 0; row < 3; row++) face.pose[row][column] = moved[row];
  }
  const Json& names = bundle.at("network").at("parameters").at("expression");
  const int first = bundle.at("network").at("parameters").at("slices").at("expression")[0];
  for (size_t i = 0; i < names.size(); i++) face.blendshapes[names[i]] = parameters[first + i];
  return face;
}

std::optional<Face> reconstruct(const Json& bundle, Network& detector, Network& check, Network& network, const Photo& photo) {
  const auto box = Detector(bundle, detector, check, photo).largest();
  if (!box) return {};
  if (bundle.at("crop").at("passes") < 2) return look(bundle, network, photo, *box);
  const Json& rule = bundle.at("crop").at("second_pass");
  Box mirrored = *box;
  mirrored.across = rule.value("mirrored_first", false) ? -1 : 1;
  const Face first = look(bundle, network, photo, mirrored);
  const double most = rule.at("max_resize"), ratio = square_around(first.landmarks, 0).side / box->side;
  if (ratio >= most || ratio <= 1 / most) return look(bundle, network, photo, *box);
  const double angle = std::atan2(first.pose[0][1], -first.pose[1][1]);  // of the head, clockwise
  return look(bundle, network, photo, square_around(first.landmarks, angle));
}

Photo read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int width = 0, height = 0, most = 0;
  file >> kind >> width >> height >> most;
  file.get();
  if (!file || kind != "P6" || most != 255 || width < 1 || height < 1)
    throw std::runtime_error(path + ": not a binary PPM (P6) with 8 bits and without comments");
  Photo photo{width, height, std::vector<uint8_t>(3 * size_t(width) * height)};
  if (!file.read(reinterpret_cast<char*>(photo.rgb.data()), photo.rgb.size()))
    throw std::runtime_error(path + ": truncated");
  return photo;
}

void write_obj(const std::string& path, const Face& face, const std::string& triangles) {
  std::ofstream obj(path);
  obj.precision(9);
  for (const Point& v : face.vertices) obj << "v " << v[0] << " " << v[1] << " " << v[2] << "\n";
  std::ifstream file(triangles, std::ios::binary);
  uint32_t corners[3];  // little-endian, like this machine
  while (file.read(reinterpret_cast<char*>(corners), sizeof corners))
    obj << "f " << corners[0] + 1 << " " << corners[1] + 1 << " " << corners[2] + 1 << "\n";
  if (!obj.flush()) throw std::runtime_error(path + ": cannot be written");
}

// The path of a file in the bundle, after checking its size: LiteRT crashes on a truncated file.
std::string whole(const std::string& folder, const Json& bundle, const Json& part) {
  const std::string name = part.at("file"), path = folder + name;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file || file.tellg() != bundle.at("files").at(name).at("bytes").get<std::streamoff>())
    throw std::runtime_error(path + ": missing, or its size differs from bundle.json");
  return path;
}

int main(int count, char** words) try {
  if (count != 4) throw std::runtime_error("usage: face BUNDLE photo.ppm face.obj");
  const std::string folder = std::string(words[1]) + "/";
  std::ifstream text(folder + "bundle.json");
  const Json bundle = Json::parse(text, nullptr, false);
  if (bundle.is_discarded()) throw std::runtime_error(folder + "bundle.json: missing, or not JSON");
  const std::string triangles = whole(folder, bundle, bundle.at("mesh").at("triangles"));
  Network detector(whole(folder, bundle, bundle.at("detector")));
  Network confirming(whole(folder, bundle, bundle.at("check")));
  Network network(whole(folder, bundle, bundle.at("network")));
  const auto face = reconstruct(bundle, detector, confirming, network, read_ppm(words[2]));
  if (!face) throw std::runtime_error(std::string(words[2]) + ": no face found");
  write_obj(words[3], *face, triangles);
  const Json box = {{"x", face->box.x}, {"y", face->box.y}, {"side", face->box.side}, {"angle", face->box.angle}};
  std::cout << Json{{"box", box}, {"landmarks", face->landmarks}, {"pose", face->pose}, {"blendshapes", face->blendshapes}} << "\n";
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << "\n";
  return 1;
}
